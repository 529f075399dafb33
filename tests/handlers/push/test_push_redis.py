"""The source redis, with a real server: connecting, passwords, channels and what is missed of them."""

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from e2e.support.programs import free_port
from e2e.support.redis import RedisServer
from e2e.support.waiting import wait_until
from feeder.support.outlets import FakeOutlet
from gaiod.handlers.push import Push
from gaiod.handlers.push.sources import redis as module
from gaiod.handlers.push.sources import source_of
from gaiod.handlers.push.sources.redis import channels

from gaiod.plugins import build_options

Serve = Callable[..., RedisServer]
Start = Callable[..., None]


@pytest.fixture
def start(outlet: FakeOutlet) -> Iterator[Start]:
    """A starter of sources of a listener where clients choose topics; it waits until the source is up."""

    def start(url: str, *, is_up: bool = True, topic: str | None = None, **values: Any) -> None:
        listener: dict[str, Any] = {"subscribe": {}} if topic is None else {"topic": topic}
        options = build_options(Push, {"source": {"redis": url, **values}, **listener})
        outlet.encode = lambda topic, data: Push.encode_message(options, topic, data)
        outlet.start(source_of(options.feeds[0], options, Push.encode_message))
        if is_up:
            wait_until(lambda: outlet.up, "the source being up")

    yield start


def test_what_is_published_in_channels_is_published_under_their_names(
    outlet: FakeOutlet, start: Start, serve_redis: Serve
) -> None:
    server = serve_redis()
    start(server.url, channels=["a", "b.*", "c[12]"])
    for channel in ("a", "b.x", "b.", "c2"):
        server.publish(channel, f"in {channel}")
    outlet.expect(("a", b"in a"), ("b.x", b"in b.x"), ("b.", b"in b."), ("c2", b"in c2"))
    assert (outlet.gaps, outlet.reconnects, outlet.threads) == (0, 0, {"gaiod-redis"})


def test_every_channel_is_the_listeners_topic_where_it_has_one(
    outlet: FakeOutlet, start: Start, serve_redis: Serve
) -> None:
    server = serve_redis()
    start(server.url, channels=["a", "b"], topic="ticks")
    server.publish("a", "1")
    server.publish("b", "2")
    outlet.expect_lines("ticks", b"1", b"2")


def test_server_over_tcp_is_read(outlet: FakeOutlet, start: Start, serve_redis: Serve) -> None:
    port = free_port()
    server = serve_redis("--port", str(port))
    start(f"redis://127.0.0.1:{port}/3", channels=["a"])
    server.publish("a", "1")
    outlet.expect(("a", b"1"))


def test_message_that_cannot_be_published_is_refused_and_the_next_one_is_not(
    outlet: FakeOutlet, start: Start, serve_redis: Serve
) -> None:
    server = serve_redis()
    start(server.url, channels=["*"])
    server.publish("a", "two\nlines")
    server.publish("no topic", "1")
    server.do("PUBLISH", b"\xff", "1")
    server.publish("a", "fine")
    outlet.expect(("a", b"fine"))
    assert outlet.refused == 3


def test_server_that_is_killed_and_comes_back_is_read_again_and_the_gap_counted(
    outlet: FakeOutlet, start: Start, serve_redis: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve_redis()
    with caplog.at_level(logging.INFO):
        start(server.url, channels=["a"], name="news")
        server.kill()
        wait_until(lambda: not outlet.up, "the source being down")
        server.start()
        wait_until(lambda: outlet.up, "the source being up again")
    assert (outlet.gaps, outlet.reconnects) == (1, 1)
    server.publish("a", "after")
    outlet.expect(("a", b"after"))
    told = [record.getMessage() for record in caplog.records if record.name == "gaiod.handler.push"]
    assert told[0] == told[-1] == f"source news: {server.url} is read"
    assert any("; trying again" in each for each in told[1:-1])


def test_client_that_the_server_disconnects_connects_again(
    outlet: FakeOutlet, start: Start, serve_redis: Serve
) -> None:
    server = serve_redis()
    start(server.url, channels=["a"])
    server.do("CLIENT", "KILL", "TYPE", "pubsub")
    wait_until(lambda: outlet.reconnects == 1, "the next connection")
    assert outlet.gaps == 1


def test_server_that_is_not_there_yet_is_waited_for_without_a_gap(
    outlet: FakeOutlet, start: Start, serve_redis: Serve
) -> None:
    server = serve_redis()
    server.kill()
    start(server.url, channels=["a"], is_up=False)
    assert not outlet.up
    server.start()
    wait_until(lambda: outlet.up, "the source being up")
    server.publish("a", "1")
    outlet.expect(("a", b"1"))
    assert (outlet.gaps, outlet.reconnects) == (0, 0)


def test_server_that_hangs_is_given_up(
    outlet: FakeOutlet, start: Start, serve_redis: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "SILENT_S", 0.05)
    monkeypatch.setattr(channels, "TURN_S", 0.02)
    server = serve_redis()
    start(server.url, channels=["a"])
    wait_until(lambda: b"cmd=ping" in server.do("CLIENT", "LIST", "TYPE", "pubsub"), "the server being asked")
    server.publish("a", "1")
    outlet.expect(("a", b"1"))
    assert (outlet.up, outlet.reconnects) == (True, 0), "a server that answers stays"
    server.pause()
    wait_until(lambda: not outlet.up, "the source being down")
    server.go_on()
    wait_until(lambda: outlet.reconnects, "the next connection")


def test_password_of_the_url_is_used_and_never_said(
    outlet: FakeOutlet, start: Start, serve_redis: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve_redis("--requirepass", "s3cret", password="s3cret")
    with caplog.at_level(logging.DEBUG):
        start(f"unix://:s3cret@{server.path}", channels=["a"])
        server.publish("a", "1")
        outlet.expect(("a", b"1"))
        server.kill()
        wait_until(lambda: not outlet.up, "the source being down")
    assert "is read" in caplog.text
    assert "s3cret" not in caplog.text
    assert "s3cret" not in repr(build_options(Push, {"source": {"redis": "redis://:s3cret@a", "channels": ["a"]}}))


def test_password_is_read_from_its_file_whenever_it_connects(
    outlet: FakeOutlet, start: Start, serve_redis: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve_redis("--requirepass", "s3cret", password="s3cret")
    file = tmp_path / "password"
    start(server.url, channels=["a"], password_file=str(file), is_up=False)
    wait_until(lambda: "No such file" in caplog.text, "the missing file being told")
    file.write_text("wrong\n")
    wait_until(lambda: "invalid username-password pair" in caplog.text, "the wrong password being told")
    assert not outlet.up
    file.write_text("s3cret\n")
    wait_until(lambda: outlet.up, "the source being up")
    assert "wrong" not in caplog.text.replace("file", "")


def test_thread_survives_what_nobody_thought_of(
    outlet: FakeOutlet, start: Start, serve_redis: Serve, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    from_url = redis.Redis.from_url
    failures = [RuntimeError("surprise")]

    def fail_once(*arguments: Any, **more: Any) -> Any:
        if failures:
            raise failures.pop()
        return from_url(*arguments, **more)

    monkeypatch.setattr(redis.Redis, "from_url", fail_once)
    start(serve_redis().url, channels=["a"])
    assert "RuntimeError: surprise" in caplog.text


def test_tries_come_at_random_within_a_bound_that_is_doubled(
    outlet: FakeOutlet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full jitter: the clients of a server that restarts do not all come at once."""
    bounds: list[float] = []

    class Dice:
        def uniform(self, low: float, high: float) -> float:
            assert low == 0
            bounds.append(high)
            if len(bounds) == 9:
                outlet.stop()
            return 0.0

    monkeypatch.setattr(module.random, "Random", Dice)
    options = build_options(Push, {"source": {"redis": "unix:///nowhere", "channels": ["a"]}})
    outlet.start(source_of(options.feeds[0], options, Push.encode_message))
    wait_until(lambda: len(bounds) >= 9, "nine tries")
    assert bounds[:9] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0])


def test_source_without_the_package_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("gaiod.handlers.push.sources.redis")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    options = build_options(Push, {"source": {"redis": "redis://a", "channels": ["a"]}})
    with pytest.raises(ValueError, match=r"source redis needs redis-py, .*; pip install 'gaiod\[redis\]'"):
        Push.sources_of(options)
