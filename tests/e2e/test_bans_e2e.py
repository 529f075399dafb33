"""Bans at run time: in force in all workers, those that come included, until they are over."""

import os
import signal
import socket

from core.support.waiting import LIMIT_S

from e2e.support.clients import exchange
from e2e.support.daemons import Daemon
from e2e.support.starting import Start
from e2e.support.waiting import wait_until
from e2e.test_upgrade import upgraded

CONFIG = """\
workers: 2
drain_timeout: 2s
metrics: {listen: "127.0.0.1:0"}
listeners:
  echo: {bind: "127.0.0.1:0", handler: echo}
"""


def client(running: Daemon, host: str) -> socket.socket:
    """Return a client from one of this machine's own addresses."""
    to, _, port = running.address().rpartition(":")
    return socket.create_connection((to, int(port)), LIMIT_S, (host, 0))


def is_served(sock: socket.socket) -> bool:
    try:
        return exchange(sock, b"ping") == b"ping"
    except OSError:
        return False


def may(running: Daemon, host: str) -> bool:
    """Tell whether whoever comes from an address is served, by whichever worker."""
    answers = set()
    for _ in range(6):
        try:
            with client(running, host) as sock:
                answers.add(is_served(sock))
        except OSError:
            answers.add(False)
    assert len(answers) == 1, "workers are of different opinions"
    return answers.pop()


def test_ban_is_in_force_until_it_ends_whatever_becomes_of_workers(daemon: Start) -> None:
    running = daemon(CONFIG)
    banned = [client(running, "127.0.0.2") for _ in range(4)]
    other = client(running, "127.0.0.3")
    assert all(map(is_served, [*banned, other]))
    done = running.gaiod("ban", "127.0.0.2")
    assert (done.returncode, done.stdout) == (0, "banned: 127.0.0.2/32\n")
    wait_until(lambda: not any(map(is_served, banned)), "the end of their connections")
    for sock in banned:
        sock.close()
    wait_until(lambda: closed(running) == 4, "their being counted")
    assert not may(running, "127.0.0.2")
    assert may(running, "127.0.0.3")
    assert running.scrape().value("gaiod_connections_rejected_total", listener="echo", reason="ban") == 6
    victims = running.workers
    for pid in victims[1:]:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(running.workers) == 2 and not {*victims[1:]} & {*running.workers}, "another worker")
    assert not may(running, "127.0.0.2")
    running.ask("reload")
    assert not may(running, "127.0.0.2")
    assert "127.0.0.2/32" in running.gaiod("bans").stdout
    new = running.ask("upgrade")["pid"]
    with upgraded(running, new):
        assert not may(running, "127.0.0.2")
        assert "1 network banned" in running.gaiod("status").stdout
        assert running.gaiod("unban", "127.0.0.2").stdout == "may connect again: 127.0.0.2/32\n"
        wait_until(lambda: may_again(running), "its being served")
    other.close()


def closed(running: Daemon) -> float:
    return running.scrape().value("gaiod_connections_closed_total", listener="echo", reason="ban")


def may_again(running: Daemon) -> bool:
    try:
        with client(running, "127.0.0.2") as sock:
            return is_served(sock)
    except OSError:
        return False


def test_ban_ends_when_its_time_is_over(daemon: Start) -> None:
    running = daemon(CONFIG)
    assert running.gaiod("ban", "127.0.0.0/24", "--for", "1s").stdout == "banned: 127.0.0.0/24 for 1s\n"
    running.wait_for("127.0.0.0/24 may connect again: the time of the ban is over")
    wait_until(lambda: may_again(running), "its being served")
    assert running.gaiod("bans").stdout == "nobody is banned\n"


def test_ban_that_would_be_too_wide_is_refused(daemon: Start) -> None:
    running = daemon(CONFIG)
    done = running.gaiod("ban", "0.0.0.0/0")
    assert done.returncode == os.EX_USAGE
    assert "0.0.0.0/0 is too wide; write /8 or longer" in done.stderr
    assert may(running, "127.0.0.2")
