"""What a process does first: its settings, and its cells."""

import os
import socket

import pytest
from core.support.descriptors import descriptors_limited_to

from gaiod.process.startup import FDS_MAX, map_cells, parts_of, receive_fds, receive_settings


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
