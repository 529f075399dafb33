"""What a process does first: its settings, and its cells."""

import os
import socket

import pytest
from core.support.descriptors import descriptors_limited_to

from gaiod.process.startup import map_cells, receive_fd, receive_settings


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


def test_descriptor_is_received_and_one_that_there_is_no_room_for_is_none() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        socket.send_fds(theirs, [b"s"], [theirs.fileno()])
        fd = receive_fd(ours)
        assert fd is not None
        assert os.fstat(fd).st_ino == os.fstat(theirs.fileno()).st_ino
        os.close(fd)
        socket.send_fds(theirs, [b"s"], [theirs.fileno()])
        with descriptors_limited_to(0):
            assert receive_fd(ours) is None
