"""Outlets: what a source may ask for, and that it gets nothing more once it is stopped."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from core.support.waiting import MOMENT_S
from gaiod.handlers.echo import Echo

from feeder.support.feeding import Feeding, Played
from gaiod import Conn, Handler, OpResult, Outlet
from gaiod.feeder import outlet as module
from gaiod.process.feed_records import MESSAGE_MAX_BYTES, TOPIC_MAX_BYTES


@pytest.fixture
def feeding() -> Iterator[Feeding]:
    """Router of one listener, `ticks`, whose source `one` runs."""
    feeding = Feeding()
    feeding.feeds.run([feeding.wanted("ticks", "one")])
    yield feeding
    feeding.close()


@pytest.fixture
def outlet(feeding: Feeding) -> Outlet:
    """The source's."""
    outlet = Played.made["one"].outlet
    assert outlet is not None
    return outlet


# -- counting ------------------------------------------------------------------------------------------------


def test_what_a_source_says_is_counted(feeding: Feeding, outlet: Outlet) -> None:
    outlet.publish(b"one", "t")
    outlet.publish(b"two", "t")
    outlet.gap("something is gone")
    for _ in range(3):
        outlet.reconnected()
    counts = [feeding.count("ticks", "one", cell) for cell in ("published", "refused", "reconnects", "gaps")]
    assert counts == [2, 0, 3, 1]
    assert feeding.count("ticks", "publish", "published") == 0


def test_gap_is_told_with_its_reason_and_not_each_of_many(
    feeding: Feeding, outlet: Outlet, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(1000):
        outlet.gap(f"entry {number} is gone")
    assert feeding.count("ticks", "one", "gaps") == 1000
    assert "source one of listener ticks: messages may be missing: entry 0 is gone" in caplog.text
    assert caplog.text.count("is gone") < 10


def test_source_is_up_until_it_says_otherwise(feeding: Feeding, outlet: Outlet) -> None:
    assert outlet.up
    outlet.up = False
    assert (outlet.up, feeding.count("ticks", "one", "up")) == (False, 0)
    outlet.up = True
    assert (outlet.up, feeding.count("ticks", "one", "up")) == (True, 1)


def test_threads_that_count_lose_nothing(feeding: Feeding, outlet: Outlet) -> None:
    def count() -> None:
        for _ in range(5000):
            outlet.gap("something is gone")

    threads = [feeding.run_in_thread(count) for _ in range(4)]
    for thread in threads:
        thread.join()
    assert feeding.count("ticks", "one", "gaps") == 20_000


# -- what cannot be published ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "topic", "why"),
    [
        (b"refuse", "t", "it is refused; publish another"),
        (b"", "t", "it is empty; give at least a byte"),
        (bytes(MESSAGE_MAX_BYTES + 1), "t", f"it has {MESSAGE_MAX_BYTES + 1} bytes; give at most {MESSAGE_MAX_BYTES}"),
        (b"x", "é" * 128, f"its topic has 256 bytes; give one of at most {TOPIC_MAX_BYTES}"),
        (b"x", "\udcff", "surrogates not allowed"),
    ],
    ids=["handler", "empty", "long", "long topic", "no text"],
)
def test_message_that_cannot_be_published_is_counted_and_told(
    feeding: Feeding, outlet: Outlet, caplog: pytest.LogCaptureFixture, data: bytes, topic: str, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        outlet.publish(data, topic)
    assert feeding.count("ticks", "one", "refused") == 1
    assert feeding.count("ticks", "one", "published") == 0
    assert f"source one of listener ticks: a message is refused: {why}" in caplog.text or topic == "\udcff"


def test_handler_that_would_end_whoever_publishes_is_an_error_like_others(feeding: Feeding, outlet: Outlet) -> None:
    with pytest.raises(RuntimeError, match=r"encode_message raised SystemExit\('no reason'\)"):
        outlet.publish(b"exit", "t")
    assert feeding.count("ticks", "one", "refused") == 1


def test_longest_message_arrives(feeding: Feeding, outlet: Outlet) -> None:
    worker = feeding.worker(ticks="key")
    outlet.publish(bytes(MESSAGE_MAX_BYTES), "t" * TOPIC_MAX_BYTES)
    assert feeding.messages(worker, 1) == [(1, bytes(MESSAGE_MAX_BYTES))]


def test_log_of_refusals_is_bounded(feeding: Feeding, outlet: Outlet, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(100):
        with pytest.raises(ValueError, match="refused"):
            outlet.publish(b"refuse", "t")
    assert caplog.text.count("a message is refused") == 1


# -- time and threads ------------------------------------------------------------------------------------------


def test_timer_and_post_come_in_the_loops_thread(feeding: Feeding, outlet: Outlet) -> None:
    seen: list[str] = []
    outlet.timer(0.0, lambda: seen.append("timer"))
    feeding.run_in_thread(lambda: outlet.post(lambda: seen.append("post"))).join()
    assert seen.count("post") <= 1
    feeding.step_until(lambda: sorted(seen) == ["post", "timer"], "both")


def test_what_raises_later_is_told_and_the_source_goes_on(
    feeding: Feeding, outlet: Outlet, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise SystemExit("no key")

    outlet.timer(0.0, fail)
    feeding.step_until(lambda: "no key" in caplog.text, "the traceback")
    assert "source one of listener ticks: what its timer was for raised; the source goes on" in caplog.text
    outlet.publish(b"on", "t")
    assert feeding.count("ticks", "one", "published") == 1


# -- afterwards ------------------------------------------------------------------------------------------------


def test_nothing_comes_of_an_outlet_whose_source_was_stopped(feeding: Feeding, outlet: Outlet) -> None:
    worker = feeding.worker(ticks="key")
    seen: list[str] = []
    outlet.timer(0.0, lambda: seen.append("timer"))
    outlet.post(lambda: seen.append("post"))
    feeding.feeds.run([feeding.wanted("ticks", key="other")])
    assert feeding.count("ticks", "one", "up") == 0
    outlet.publish(b"late", "t")
    outlet.publish(b"refuse", "t")
    outlet.gap("something is gone")
    outlet.reconnected()
    outlet.up = True
    assert [feeding.count("ticks", "one", cell) for cell in ("published", "refused", "up", "reconnects", "gaps")] == (
        [0] * 5
    )
    assert feeding.feeds.publish(None, "t", b"the end") == {"listeners": ["ticks"]}
    assert feeding.messages(worker, 1) == [(1, b"the end")]
    assert seen == []


def test_address_that_the_source_has_not_named_is_refused(feeding: Feeding, outlet: Outlet, tmp_path: Path) -> None:
    feeding.listening(tmp_path / "inlet.sock")
    with pytest.raises(ValueError, match="has not opened unix:/other; name it in listens_on of the source"):
        outlet.serve("unix:/other", Echo())


@pytest.mark.parametrize("written", ["{}", "{}/../inlet.sock"])
def test_what_clients_have_sent_is_published_before_a_source_stops(
    feeding: Feeding, outlet: Outlet, tmp_path: Path, written: str
) -> None:
    """Those who were accepted, at least; others wait for the source that comes next."""
    path = tmp_path / "inlet.sock"
    address = feeding.listening(path)
    outlet.serve(written.format(address), Publishes(outlet))
    clients = [_client_that_says(path, b"first") for _ in range(3)]
    feeding.step_until(lambda: feeding.count("ticks", "one", "published") == 3, "the first messages")
    waits = feeding.run_in_thread(lambda: _say_slowly(clients[0]))
    stopped: list[bool] = []
    feeding.feeds.run([])
    feeding.feeds.when_settled(lambda: stopped.append(True))
    late = _client_that_says(path, b"late")
    feeding.step_until(lambda: stopped, "the end")
    waits.join()
    assert feeding.count("ticks", "one", "published") == 3 + 5
    assert Played.made["one"].stops == 1
    for sock in (*clients, late):
        sock.close()


def test_client_that_never_pauses_is_cut_in_the_end(
    feeding: Feeding, outlet: Outlet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FINISH_MAX_S", 5 * MOMENT_S)
    path = tmp_path / "inlet.sock"
    outlet.serve(feeding.listening(path), Publishes(outlet))
    with _client_that_says(path, b"first") as client:
        feeding.step_until(lambda: feeding.count("ticks", "one", "published") == 1, "the first message")
        feeding.feeds.run([])

        def says() -> None:
            with pytest.raises(BrokenPipeError):
                while True:
                    client.sendall(b"more")

        speaking = feeding.run_in_thread(says)
        speaking.join()
        assert speaking.error is None
    assert Played.made["one"].stops == 1


class Publishes(Handler):
    """Publishes whatever comes."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__()
        self._outlet = outlet

    def on_open(self, conn: Conn) -> None:
        conn.read()

    def on_read(self, conn: Conn, result: OpResult) -> None:
        self._outlet.publish(bytes(result.buffer), "t")
        conn.read()


def _client_that_says(path: Path, data: bytes) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    sock.sendall(data)
    return sock


def _say_slowly(sock: socket.socket) -> None:
    for _ in range(5):
        time.sleep(module.QUIET_S / 5)
        sock.sendall(b"x")


def test_post_of_a_thread_that_outlives_the_feeder_is_no_error(feeding: Feeding, outlet: Outlet) -> None:
    feeding.watcher.close()
    outlet.post(lambda: None)


def test_interface_has_what_there_is_behind_it() -> None:
    wanted = {name for name in vars(Outlet) if not name.startswith("_")}
    assert wanted <= set(vars(module.SourceOutlet))
