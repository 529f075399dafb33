"""What the kernel is told about connections, as an operator sees it."""

import time
from pathlib import Path

from core.support.waiting import LIMIT_S

from e2e.support.clients import connect
from e2e.support.handlers import FLOODS, beside
from e2e.support.starting import Start
from e2e.support.waiting import wait_until


def test_client_that_takes_nothing_is_ended_after_the_user_timeout(daemon: Start, tmp_path: Path) -> None:
    """Its window is closed, and the kernel does not wait for it for ever: long before the idle timeout."""
    (tmp_path / "mine.py").write_text(FLOODS)
    running = daemon(beside("    user_timeout: 1s\n"))
    with connect(running.address("mine")):
        began_s = time.monotonic()

        def is_closed() -> bool:
            samples = running.scrape()
            return samples.value("gaiod_connections_closed_total", listener="mine", reason="user_timeout") == 1

        wait_until(is_closed, "the end of the connection", limit_s=LIMIT_S)
        assert time.monotonic() - began_s > 0.9


def test_large_answer_arrives_whole_when_the_kernel_takes_little_of_it_ahead(daemon: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FLOODS)
    running = daemon(beside("    notsent_lowat: 4KiB\n"))
    with connect(running.address("mine")) as sock:
        size = 0
        while part := sock.recv(1 << 20):
            size += len(part)
        assert size == 64 << 20


def test_daemon_ends_with_71_when_the_kernel_has_no_such_congestion_control(daemon: Start) -> None:
    running = daemon('listeners: {echo: {bind: "127.0.0.1:0", handler: echo, congestion: nonsense}}\n', ready=False)
    assert running.wait() == 71
    assert "listener echo: congestion: nonsense is no algorithm of this kernel" in running.log()
