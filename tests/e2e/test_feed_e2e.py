"""Messages: from a source, through the feeder, to the clients of every worker, whatever happens to these."""

import os
import signal
import socket
from functools import partial
from pathlib import Path

import pytest

from e2e.support.clients import Samples, connect
from e2e.support.daemons import Daemon
from e2e.support.feeding import PUSHES, config, feeder_of, subscribers
from e2e.support.procfs import is_alive, session_of
from e2e.support.starting import Start
from e2e.support.waiting import wait_until


@pytest.fixture(autouse=True)
def handler(tmp_path: Path) -> None:
    """The handler, beside the configuration."""
    (tmp_path / "mine.py").write_text(PUSHES)


def _go(running: Daemon) -> None:
    (running.folder / "go").touch()


def _source(samples: Samples, name: str, source: str) -> float:
    return samples.value(f"gaiod_push_{name}", listener="mine", source=source)


# -- messages ----------------------------------------------------------------------------------------------


def test_clients_of_every_worker_get_the_same_messages_in_the_same_order(daemon: Start) -> None:
    running = daemon(config("clocks: [a, b]"))
    with subscribers(running) as (one, other):
        one.until(other.line())  # the first of the two has been there longer
        seen = one.lines(100)
        assert other.lines(100) == seen
    for name in ("a", "b"):
        numbers = [int(line.split()[1]) for line in seen if line.startswith(name)]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    samples = running.scrape()
    assert _source(samples, "published_total", "a") > 10
    assert _source(samples, "source_up", "a") == 1
    assert samples.value("gaiod_push_feed_gaps_total", listener="mine") == 0
    assert (samples.value("gaiod_feeder_up"), samples.value("gaiod_feeder_restarts_total")) == (1, 0)


def test_every_message_arrives_once_when_a_thread_publishes_more_than_workers_take(daemon: Start) -> None:
    """It waits for them: nothing is dropped, and no more is held than a link may be behind."""
    running = daemon(config("flood: 20000, size: 1KiB"))
    with subscribers(running) as both:
        _go(running)
        for each in both:
            assert [int(line.split()[1].rstrip(".")) for line in each.lines(20000)] == list(range(20000))
    samples = running.scrape()
    assert _source(samples, "published_total", "flood") == 20000
    assert samples.value("gaiod_push_feed_gaps_total", listener="mine") == 0


def test_message_that_is_refused_is_counted_and_the_source_goes_on(daemon: Start, tmp_path: Path) -> None:
    path = tmp_path / "inlet.sock"
    running = daemon(config(f"inlet: 'unix:{path}'", workers=1))
    with subscribers(running, 1) as (client,):
        assert running.gaiod("publish", "news", "two\nlines").returncode == 65
        assert running.gaiod("publish", "news", "one line").returncode == 0
        assert client.line() == "one line"
    samples = running.scrape()
    assert _source(samples, "refused_total", "publish") == 1
    assert _source(samples, "published_total", "publish") == 1
    assert "source publish of listener mine: a message is refused: it has a newline; leave that out" in running.log()


def test_daemon_whose_listeners_take_no_messages_has_no_feeder(daemon: Start) -> None:
    running = daemon()
    assert running.ask("status")["feeder"] is None
    assert running.scrape().labels("gaiod_feeder_up") == []
    assert len(session_of(running.pid)) == 2


# -- workers that end --------------------------------------------------------------------------------------


def test_successor_of_a_killed_worker_gets_the_messages_and_the_others_miss_none(daemon: Start) -> None:
    running = daemon(config("clocks: [a]"))
    with subscribers(running) as (one, other):
        last = other.number
        os.kill(one.worker, signal.SIGKILL)
        wait_until(lambda: one.worker not in running.workers and len(running.workers) == 2, "another worker")
        with subscribers(running, 1, but=(other.worker,)) as (successor,):
            number = successor.number
            assert [successor.number for _ in range(20)] == list(range(number + 1, number + 21))
        while last < number:
            assert other.number == last + 1
            last += 1


def test_worker_that_is_stopped_does_not_stop_the_others_and_gets_everything_when_it_goes_on(daemon: Start) -> None:
    running = daemon(config("flood: 20000, size: 1KiB"))
    with subscribers(running) as (stopped, other):
        os.kill(stopped.worker, signal.SIGSTOP)
        try:
            _go(running)
            assert [int(line.split()[1].rstrip(".")) for line in other.lines(20000)] == list(range(20000))
        finally:
            os.kill(stopped.worker, signal.SIGCONT)
        assert [int(line.split()[1].rstrip(".")) for line in stopped.lines(20000)] == list(range(20000))
    assert "1 of 2 workers take nothing; not waiting for them" in running.log()


def test_worker_that_is_too_far_behind_is_cut_off_and_counts_what_it_missed(daemon: Start) -> None:
    total = 12_000
    running = daemon(config(f"flood: {total}, size: 8KiB"))
    with subscribers(running) as (stopped, other):
        os.kill(stopped.worker, signal.SIGSTOP)
        try:
            _go(running)
            other.lines(total)
            running.wait_for("a worker has not taken 64 MiB, and is cut off")
        finally:
            os.kill(stopped.worker, signal.SIGCONT)
        running.wait_for("messages did not get to this worker")
        assert running.gaiod("publish", "news", "the end").returncode == 0
        got = 0
        while stopped.line() != "the end":
            got += 1
        assert 0 < got < total
        assert running.scrape().value("gaiod_push_feed_gaps_total", listener="mine") == total - got
        assert other.line() == "the end"


# -- the feeder ends -----------------------------------------------------------------------------------------


def test_killed_feeder_is_started_again_and_nobody_is_disconnected(daemon: Start) -> None:
    running = daemon(config("clocks: [a]"))
    feeder = feeder_of(running)
    with subscribers(running) as both:
        for each in both:
            each.after_the_first()
        before = _source(running.scrape(), "published_total", "a")
        os.kill(feeder, signal.SIGKILL)
        for each in both:
            each.until("a 1")
            assert each.lines(5) == [f"a {number}" for number in range(2, 7)]
        assert feeder_of(running) != feeder
        samples = running.scrape()
        assert samples.value("gaiod_feeder_restarts_total") == 1
        assert _source(samples, "source_gaps_total", "a") == 1, "what it would have published meanwhile is missing"
        assert _source(samples, "published_total", "a") > before
        assert samples.total("gaiod_worker_restarts_total") == 0
    assert f"the feeder, process {feeder}, ended by SIGKILL" in running.log()


def test_hung_feeder_is_ended_with_its_stack_in_the_log_and_another_started(daemon: Start) -> None:
    running = daemon(config("clocks: [a]").replace("heartbeat_timeout: 60s", "heartbeat_timeout: 1s"))
    feeder = feeder_of(running)
    with subscribers(running) as (one, _):
        one.after_the_first()
        os.kill(feeder, signal.SIGSTOP)
        one.until("a 1")
        assert feeder_of(running) != feeder
    assert f"the feeder, process {feeder}, was here when it ended" in running.log()


def test_source_that_cannot_be_started_is_down_and_tried_again_while_the_others_go_on(daemon: Start) -> None:
    running = daemon(config("clocks: [a], broken: true", workers=1), files={"broken": ""})
    with subscribers(running, 1) as (client,):
        client.lines(5)
        samples = running.scrape()
        assert (_source(samples, "source_up", "a"), _source(samples, "source_up", "broken")) == (1, 0)
        assert "source broken of listener mine cannot be started; next attempt in 0.5 s" in running.log()
        assert "RuntimeError: it is broken" in running.log()
        (running.folder / "broken").unlink()
        client.until("mended")
        assert _source(running.scrape(), "source_up", "broken") == 1


# -- reloads -------------------------------------------------------------------------------------------------


def _reload(running: Daemon, tmp_path: Path, text: str) -> None:
    (tmp_path / "gaiod.yaml").write_text(text)
    running.ask("reload")


def _sources(running: Daemon) -> list[tuple[str, str]]:
    return [(row["listener"], row["source"]) for row in running.ask("status")["sources"]]


OTHER = '  other: {bind: "127.0.0.1:0", handler: "./mine.py:Pushes", with: {clocks: [b]}}\n'


def test_sources_that_have_not_changed_go_on_over_a_reload_and_others_are_added_and_removed(
    daemon: Start, tmp_path: Path
) -> None:
    running = daemon(config("clocks: [a]"))
    feeder = feeder_of(running)
    with subscribers(running) as (old, _):
        last = old.number
        _reload(running, tmp_path, config("clocks: [a]", more=OTHER))
        assert [old.number for _ in range(50)] == list(range(last + 1, last + 51)), "the drained worker's client"
        with subscribers(running, 1, but=(old.worker,)) as (new,):
            assert new.number > last
        assert _sources(running) == [("mine", "publish"), ("mine", "a"), ("other", "publish"), ("other", "b")]
        wait_until(lambda: running.scrape().total("gaiod_push_published_total", listener="other"), "the added source")
    _reload(running, tmp_path, config("clocks: [a]"))
    assert _sources(running) == [("mine", "publish"), ("mine", "a")]
    assert feeder_of(running) == feeder
    assert _source(running.scrape(), "published_total", "a") > last
    assert running.scrape().value("gaiod_push_feed_gaps_total", listener="mine") == 0


def test_clients_get_messages_as_they_were_promised_when_a_reload_changes_the_options(
    daemon: Start, tmp_path: Path
) -> None:
    """Those of the worker that drains have another encoding than those of its successor."""
    running = daemon(config("clocks: [a], greeting: old-", workers=1))
    with subscribers(running, 1) as (old,):
        assert old.line().startswith("old-a ")
        _reload(running, tmp_path, config("clocks: [a], greeting: new-", workers=1))
        with subscribers(running, 1, but=(old.worker,)) as (new,):
            assert new.line().startswith("new-a ")
            old.until("old-a 1")
            assert old.lines(5) == [f"old-a {number}" for number in range(2, 7)]
    assert running.scrape().value("gaiod_push_feed_gaps_total", listener="mine") == 0


def test_code_that_has_changed_runs_after_a_reload(daemon: Start, tmp_path: Path) -> None:
    running = daemon(config("clocks: [a]", workers=1))
    feeder_of(running)
    (old,) = running.workers
    (tmp_path / "mine.py").write_text(PUSHES.replace("{self.name} {", "{self.name} tick {"))
    running.ask("reload")
    with subscribers(running, 1, but=(old,)) as (client,):
        wait_until(lambda: client.line().startswith("a tick "), "a message of the new code")


def test_reload_that_fails_leaves_the_sources_as_they_are(daemon: Start, tmp_path: Path) -> None:
    running = daemon(config("clocks: [a]", workers=1))
    with subscribers(running, 1) as (client,):
        last = client.number
        (tmp_path / "gaiod.yaml").write_text(config("clocks: [a, a]", workers=1))
        done = running.gaiod("reload")
        assert done.returncode == 78
        assert "has 2 sources called 'a'; give each a name of its own" in done.stderr
        assert [client.number for _ in range(20)] == list(range(last + 1, last + 21))


def test_feeder_comes_and_goes_with_the_listeners_that_take_messages(daemon: Start, tmp_path: Path) -> None:
    echo = 'metrics: {listen: "127.0.0.1:0"}\nlisteners: {echo: {bind: "127.0.0.1:0", handler: echo}}\n'
    running = daemon(echo)
    _reload(running, tmp_path, config("clocks: [a]", workers=1))
    feeder = feeder_of(running)
    with subscribers(running, 1) as (client,):
        client.lines(3)
    _reload(running, tmp_path, echo)
    wait_until(lambda: not is_alive(feeder), "the feeder's end")
    assert running.ask("status")["feeder"] is None
    assert "Traceback" not in running.log()


# -- the end, and another daemon -----------------------------------------------------------------------------


def test_feeder_ends_after_the_workers_and_nothing_is_left_when_the_daemon_stops(daemon: Start, tmp_path: Path) -> None:
    path = tmp_path / "inlet.sock"
    running = daemon(config(f"clocks: [a], flood: 1000000, inlet: 'unix:{path}'"))
    feeder = feeder_of(running)
    with subscribers(running) as both:
        _go(running)
        both[0].lines(100)
    assert path.is_socket()
    running.stop()
    assert not is_alive(feeder)
    assert session_of(running.pid) == []
    assert not path.exists()
    assert "Traceback" not in running.log()


def test_feeder_ends_with_its_supervisor_when_that_is_killed(daemon: Start) -> None:
    running = daemon(config("clocks: [a]"))
    feeder = feeder_of(running)
    running.send(signal.SIGKILL)
    running.wait()
    wait_until(lambda: not is_alive(feeder), "the feeder's end")


def test_daemon_ends_in_order_when_a_signal_goes_to_all_of_its_processes(daemon: Start) -> None:
    """As from systemd: the feeder waits for its supervisor, which ends it after the workers."""
    running = daemon(config("clocks: [a]"))
    feeder_of(running)
    running.send_to_all(signal.SIGTERM)
    assert running.wait() == 0, running.log()
    assert "the feeder, process" not in running.log().partition("stopping")[2]


def _say(path: Path, text: str) -> None:
    """Send a line to an inlet, which its source opens in a moment: first there is a socket, then it listens."""
    with wait_until(partial(_connected, path), "the inlet") as sock:
        sock.sendall(text.encode() + b"\n")


def _connected(path: Path) -> socket.socket | None:
    try:
        return connect(f"unix:{path}")
    except (FileNotFoundError, ConnectionRefusedError):
        return None


def test_upgraded_daemon_takes_the_inlets_over_and_the_old_ones_clients_keep_the_other_sources(
    daemon: Start, tmp_path: Path
) -> None:
    path = tmp_path / "inlet.sock"
    running = daemon(config(f"clocks: [a], inlet: 'unix:{path}'", workers=1))
    with subscribers(running, 1) as (old,):
        _say(path, "to the old")
        old.until("to the old")
        assert running.gaiod("upgrade").returncode == 0
        new_pid = running.ask("status")["pid"]
        with subscribers(running, 1, but=(old.worker,)) as (new,):
            _say(path, "to the new")
            new.until("to the new")
            assert running.gaiod("publish", "news", "to the new, too").returncode == 0
            new.until("to the new, too")
            last = old.number
            assert [old.number for _ in range(20)] == list(range(last + 1, last + 21)), "and none of the new one's"
    assert running.wait() == 0, running.log()
    assert path.is_socket(), "it is the new daemon's"
    os.kill(new_pid, signal.SIGTERM)
    wait_until(lambda: not session_of(running.pid), "the new daemon's end")
    assert not path.exists()
    assert "Traceback" not in running.log()
