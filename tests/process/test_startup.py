"""What a process does first: its settings, and its cells."""

import os
import resource
import socket
import subprocess
import sys

import pytest
from core.support.descriptors import descriptors_limited_to
from core.support.waiting import LIMIT_S

from gaiod.process.startup import DESCRIPTORS_TABLE, FDS_MAX, map_cells, parts_of, receive_fds, receive_settings


def test_settings_are_received_in_pieces_and_what_is_behind_them_is_kept() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b'{"a": 1}\n{"run"')
        assert receive_settings(ours) == ({"a": 1}, b'{"run"')


def test_process_ends_when_nobody_has_settings_for_it() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        with pytest.raises(SystemExit) as ended:
            receive_settings(ours)
    assert ended.value.code == os.EX_OSERR


def test_what_is_counted_is_seen_by_whoever_has_the_memory_and_its_descriptor_is_closed() -> None:
    fd = os.memfd_create("cells")
    os.ftruncate(fd, 80)
    other = os.dup(fd)
    try:
        cells = map_cells(fd)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
        assert len(cells) == 10
        cells[3] = -7
        assert os.pread(other, 8, 24) == (-7).to_bytes(8, "little", signed=True)
    finally:
        os.close(other)


@pytest.mark.parametrize("count", [1, FDS_MAX, FDS_MAX + 1])
def test_descriptors_are_received_and_there_is_room_for_all_of_them_or_for_none(count: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for limited in (False, True):
            for part in parts_of(count):
                socket.send_fds(theirs, [b"s"], ([theirs.fileno()] * count)[part])
            if limited:
                open_before = len(os.listdir("/proc/self/fd"))
                with descriptors_limited_to(count - 1):
                    assert receive_fds(ours, count) is None
                assert len(os.listdir("/proc/self/fd")) == open_before
            else:
                fds = receive_fds(ours, count)
                assert fds is not None
                assert {os.fstat(fd).st_ino for fd in fds} == {os.fstat(theirs.fileno()).st_ino}
                assert len(fds) == count
                for fd in fds:
                    os.close(fd)


def test_room_for_descriptors_is_made_once() -> None:
    """In a process of its own: a table never shrinks."""
    code = (
        "import os, sys\n"
        "from gaiod.process.startup import make_room_for_descriptors\n"
        "before = sorted(os.listdir('/proc/self/fd'))\n"
        "make_room_for_descriptors(0)\n"
        "assert sorted(os.listdir('/proc/self/fd')) == before\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('FDSize')))\n"
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "make_room_for_descriptors(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=LIMIT_S, check=True
    )
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert int(done.stdout) >= min(soft, DESCRIPTORS_TABLE)
