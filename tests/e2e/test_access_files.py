"""Files of access rules, which are read again by themselves: no worker is replaced, and no connection touched."""

from pathlib import Path

import pytest
from core.support.waiting import LIMIT_S

from e2e.support.clients import connect, exchange
from e2e.support.daemons import Daemon
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

CONFIG = """\
workers: 2
metrics: {{listen: "127.0.0.1:0"}}
listeners:
  echo: {{bind: "127.0.0.1:0", handler: echo, access: ["deny file:{path}"]}}
  other: {{bind: "127.0.0.1:0", handler: echo, access: ["deny file:{path}", "deny 192.0.2.0/24"]}}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file, in which is nobody."""
    path = tmp_path / "blocked.txt"
    path.write_text("# nobody yet\n")
    return path


def is_refused(running: Daemon, listener: str) -> bool:
    """Tell whether a client is reset."""
    try:
        with connect(running.address(listener)) as sock:
            return exchange(sock, b"ping") != b"ping"
    except ConnectionError:
        return True


def ok(running: Daemon, path: Path) -> float:
    return running.scrape().value("gaiod_watched_file_ok", kind="access", file=str(path))


def test_change_is_in_force_in_all_workers_and_touches_no_connection(daemon: Start, path: Path) -> None:
    running = daemon(CONFIG.format(path=path))
    workers = running.workers
    with connect(running.address("echo")) as established:
        assert exchange(established, b"before") == b"before"
        path.write_text("127.0.0.1\n")
        running.wait_for(f"access file {path} was read again: what it has is in force")
        wait_until(lambda: all(is_refused(running, name) for name in ("echo", "other") * 4), "refusals")
        assert exchange(established, b"after") == b"after"
    assert running.workers == workers
    assert running.ask("status")["generation"] == 1


def test_broken_file_keeps_the_last_good_one_and_is_seen_everywhere(daemon: Start, path: Path) -> None:
    running = daemon(CONFIG.format(path=path))
    wait_until(lambda: ok(running, path) == 1, "it is looked at")
    path.write_text("127.0.0.1\nnonsense\n")
    running.wait_for("line 2: nonsense is not a network")
    wait_until(lambda: ok(running, path) == 0, "the metric")
    assert not is_refused(running, "echo")
    shown = running.gaiod("status").stdout
    assert "broken" in shown
    assert "what it had before stays in force: " in shown
    refusal = running.gaiod("reload")
    assert refusal.returncode == 78
    assert "blocked.txt, line 2: nonsense is not a network" in refusal.stderr
    path.write_text("127.0.0.1\n")
    wait_until(lambda: ok(running, path) == 1, "that it is good again")
    wait_until(lambda: is_refused(running, "echo"), "its being in force")
    assert "in force" in running.gaiod("status").stdout


def test_worker_that_starts_later_has_what_the_file_has_now(daemon: Start, path: Path) -> None:
    running = daemon(CONFIG.format(path=path))
    path.write_text("127.0.0.1\n")
    running.wait_for("what it has is in force")
    running.gaiod("workers", "restart", limit_s=2 * LIMIT_S)
    assert all(is_refused(running, "echo") for _ in range(4))


def test_reload_after_a_change_of_the_file_leaves_its_listener_unchanged(daemon: Start, path: Path) -> None:
    """What workers have is what the reload reads."""
    running = daemon(CONFIG.format(path=path))
    path.write_text("192.0.2.7\n")
    running.wait_for("what it has is in force")
    assert running.ask("reload")["changes"] == []
