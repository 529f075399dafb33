"""The router: whose sources run, and who gets what they publish, as configurations come and go."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from gaiod.handlers.echo import Echo

from feeder.support.feeding import Feeding, Played
from gaiod.feeder import source_runner


@pytest.fixture
def feeding() -> Iterator[Feeding]:
    """Router that have sent 40 messages of `ticks` in another process's life."""
    feeding = Feeding({"ticks": 40})
    yield feeding
    feeding.close()


# -- sets of sources -------------------------------------------------------------------------------------------


def test_unchanged_sources_go_on_and_others_are_stopped_and_started(feeding: Feeding) -> None:
    feeding.feeds.run([feeding.wanted("ticks", "one"), feeding.wanted("news", "two")])
    one, two = Played.made["one"], Played.made["two"]
    feeding.feeds.run([feeding.wanted("ticks", "one"), feeding.wanted("more", "three")])
    assert Played.made["one"] is one
    assert (one.starts, one.stops, two.stops) == (1, 0, 1)
    assert Played.made["three"].is_running
    feeding.feeds.run([feeding.wanted("ticks", "one", key="other")])
    assert (one.stops, Played.made["three"].stops) == (1, 1)
    assert Played.made["one"] is not one
    assert Played.made["one"].is_running


def test_source_that_is_like_a_new_one_goes_on_when_its_listener_has_other_options(feeding: Feeding) -> None:
    """And what it publishes goes where the new options say, to the workers of both configurations."""
    feeding.feeds.run([feeding.wanted("ticks", "same", "one")])
    old = feeding.worker(ticks="key")
    same, one = Played.made["same"], Played.made["one"]
    feeding.feeds.run([feeding.wanted("ticks", "one", "same", key="later", prefix="new-")])
    new = feeding.worker(None, {"prefix": "new-"}, ticks="later")
    assert (same.starts, same.stops) == (1, 0)
    assert Played.made["same"].starts == 0, "it was made, and not started"
    assert (one.stops, Played.made["one"].starts) == (1, 1)
    same.publish(b"a")
    assert feeding.messages(old, 1) == [(41, b"a")]
    assert feeding.messages(new, 1) == [(41, b"new-a")]
    feeding.feeds.run([])
    assert same.stops == 1


def test_source_of_another_name_or_that_cannot_be_compared_is_no_other(feeding: Feeding) -> None:
    names = ("same", "same, it raises")
    feeding.feeds.run([feeding.wanted("ticks", *names)])
    before = [Played.made[name] for name in names]
    feeding.feeds.run([feeding.wanted("ticks", "same again", names[1], key="later")])
    assert [each.stops for each in before] == [1, 1]
    assert Played.made["same again"].is_running
    assert Played.made[names[1]].is_running


def test_source_that_could_not_be_started_yet_publishes_to_the_new_options(
    feeding: Feeding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_runner, "PAUSE_FIRST_S", 0.01)
    monkeypatch.setitem(Played.failures, "same", 1)
    feeding.feeds.run([feeding.wanted("ticks", "same")])
    same = Played.made["same"]
    feeding.feeds.run([feeding.wanted("ticks", "same", key="later", prefix="new-")])
    new = feeding.worker(None, {"prefix": "new-"}, ticks="later")
    feeding.step_until(lambda: same.is_running, "the start that works")
    same.publish(b"a")
    assert (42, b"new-a") in feeding.messages(new, 1)


def test_new_sources_start_once_those_before_have_let_their_clients_finish(feeding: Feeding, tmp_path: Path) -> None:
    feeding.feeds.run([feeding.wanted("ticks", "one", "same")])
    one = Played.made["one"]
    assert one.outlet is not None
    address = feeding.listening(tmp_path / "in.sock")
    one.outlet.serve(address, Echo())
    feeding.feeds.run([feeding.wanted("ticks", "one", "same", key="later")])
    assert (one.stops, Played.made["one"].starts) == (0, 0)
    assert feeding.feeds.publish(None, "t", b"meanwhile") == {"listeners": ["ticks"]}
    feeding.feeds.run([feeding.wanted("ticks", "one", "two", key="last")])
    settled: list[bool] = []
    feeding.feeds.when_settled(lambda: settled.append(True))
    assert not settled
    feeding.step_until(lambda: settled, "the start of others")
    assert (one.stops, Played.made["one"].starts, Played.made["two"].starts) == (1, 1, 1)


def test_sources_with_clients_stop_first_and_the_others_feed_meanwhile(feeding: Feeding, tmp_path: Path) -> None:
    feeding.feeds.run([feeding.wanted("ticks", "one", "two")])
    one, two = Played.made["one"], Played.made["two"]
    assert one.outlet is not None
    one.outlet.serve(feeding.listening(tmp_path / "in.sock"), Echo())
    stopped: list[bool] = []
    feeding.feeds.stop(lambda: stopped.append(True))
    assert (one.stops, two.stops) == (0, 0)
    feeding.step_until(lambda: one.stops, "the end of the first")
    assert (two.stops, stopped) == (1, [True])


def test_sockets_that_are_not_needed_any_more_are_closed(feeding: Feeding, tmp_path: Path) -> None:
    feeding.listening(tmp_path / "in.sock")
    feeding.feeds.take_inlets({})
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(str(tmp_path / "in.sock"))


def test_socket_that_was_made_anew_is_served_by_the_source_that_runs(feeding: Feeding, tmp_path: Path) -> None:
    feeding.feeds.run([feeding.wanted("ticks", "one")])
    outlet = Played.made["one"].outlet
    assert outlet is not None
    path = tmp_path / "in.sock"
    outlet.serve(feeding.listening(path), Echo())
    path.unlink()
    feeding.listening(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"ping")
        client.setblocking(False)

        def look() -> bool:
            try:
                return client.recv(4) == b"ping"
            except BlockingIOError:
                return False

        feeding.step_until(look, "the echo")


def test_sources_of_a_listener_that_comes_back_run_once(feeding: Feeding) -> None:
    worker = feeding.worker(ticks="key")  # somebody still has the feed: it is not forgotten meanwhile
    for _ in range(3):
        feeding.feeds.run([feeding.wanted("ticks", "one")])
        feeding.feeds.run([])
    feeding.feeds.run([feeding.wanted("ticks", "one")])
    assert feeding.feeds.publish(None, "t", b"once") == {"listeners": ["ticks"]}
    Played.made["one"].publish(b"twice")
    assert feeding.messages(worker, 2) == [(41, b"once"), (42, b"twice")]


def test_source_that_the_configuration_check_has_not_seen_is_not_started(
    feeding: Feeding, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = feeding.wanted("ticks", "one", "two")
    del wanted["rows"]["two"]
    feeding.feeds.run([wanted])
    assert Played.made["one"].is_running
    assert not Played.made["two"].is_running
    assert "source two of listener ticks did not exist when the configuration was read; reload" in caplog.text


def test_handler_that_cannot_be_loaded_costs_its_own_listener_and_is_tried_again(
    feeding: Feeding, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(source_runner, "PAUSE_FIRST_S", 0.01)
    broken = {**feeding.wanted("ticks", "one"), "handler": "/no/such/file.py"}
    feeding.feeds.run([broken, feeding.wanted("news", "two")])
    assert Played.made["two"].is_running
    assert "the sources of listener ticks do not run; next attempt in 0.01 s" in caplog.text
    feeding.step_until(lambda: "next attempt in 0.02 s" in caplog.text, "another try")
    feeding.feeds.run([feeding.wanted("news", "two")])


# -- sequences -------------------------------------------------------------------------------------------------


def test_sequence_goes_on_from_where_the_feeder_before_this_one_was(feeding: Feeding) -> None:
    feeding.feeds.run([feeding.wanted("ticks", "one")])
    worker = feeding.worker(ticks="key")
    Played.made["one"].publish(b"next")
    assert feeding.messages(worker, 1) == [(41, b"next")]


def test_listeners_count_apart_and_their_sources_together(feeding: Feeding) -> None:
    feeding.feeds.run([feeding.wanted("ticks", "one", "two"), feeding.wanted("news", "three")])
    worker = feeding.worker(ticks="key", news="key")
    for name in ("one", "three", "two"):
        Played.made[name].publish(name.encode())
    assert feeding.messages(worker, 3) == [(41, b"one"), (1, b"three"), (42, b"two")]


def test_worker_gets_the_messages_of_its_own_listeners_only(feeding: Feeding) -> None:
    feeding.feeds.run([feeding.wanted("ticks", "one"), feeding.wanted("news", "two")])
    worker = feeding.worker(news="key")
    Played.made["one"].publish(b"not for it")
    Played.made["two"].publish(b"for it")
    assert feeding.messages(worker, 1) == [(1, b"for it")]


def test_worker_that_waits_for_a_reload_gets_the_messages_of_before_as_it_wants_them(feeding: Feeding) -> None:
    """It connects while the sources of the configuration before run."""
    feeding.feeds.run([feeding.wanted("ticks", "one")])
    old, new = feeding.worker(ticks="key"), feeding.worker(None, {"prefix": "new-"}, ticks="later")
    Played.made["one"].publish(b"before")
    feeding.feeds.run([feeding.wanted("ticks", "one", key="later", prefix="new-")])
    Played.made["one"].publish(b"after")
    assert feeding.messages(old, 2) == [(41, b"before"), (42, b"after")]
    assert feeding.messages(new, 2) == [(41, b"new-before"), (42, b"new-after")]


def test_message_that_the_old_options_refuse_is_missing_there_and_its_sequence_tells(feeding: Feeding) -> None:
    feeding.feeds.run([feeding.wanted("ticks", "one", refused="x")])
    old = feeding.worker(ticks="key")
    feeding.feeds.run([feeding.wanted("ticks", "one", key="later")])
    Played.made["one"].publish(b"x")
    Played.made["one"].publish(b"taken there")
    assert feeding.messages(old, 1) == [(42, b"taken there")]


def test_worker_gets_what_it_has_missed_from_another_feeder_too(feeding: Feeding) -> None:
    feeding.feeds.run([feeding.wanted("ticks", "one"), feeding.wanted("news", "two")])
    for number in range(41, 45):
        Played.made["one"].publish(b"%d" % number, position=("numbers", str(number)))
        Played.made["two"].publish(b"not for it")
    back = feeding.worker(42, ticks="key")
    assert feeding.records(back) == [(43, b"43"), (44, b"44"), (44, b"")]
    with closing(feeding.successor()) as after:
        assert after.journal.position("ticks", "numbers") == "44"
        back = after.worker(41, {"prefix": "as-promised-"}, ticks="of a generation that this one has not seen")
        promised = [(number, b"as-promised-%d" % number) for number in range(42, 45)]
        assert after.records(back) == [*promised, (44, b"")]
        after.feeds.run([after.wanted("ticks", "one")])
        Played.made["one"].publish(b"next")
        assert after.messages(back, 1) == [(45, b"as-promised-next")]


def test_new_worker_gets_the_last_message_of_each_topic_if_it_wants_it(feeding: Feeding) -> None:
    feeding.feeds.run([feeding.wanted("ticks", "one", last=True)])
    for topic in "aba":
        Played.made["one"].publish(f"of {topic}".encode(), topic)
    with closing(feeding.successor()) as after:
        new = after.worker(None, {"last": True}, ticks="key")
        assert after.records(new) == [(40, b"before"), (42, b"of b"), (43, b"of a"), (43, b"")]
        assert after.records(after.worker(ticks="other")) == [(43, b"")]
        after.feeds.run([after.wanted("ticks", "one", key="other")])  # nobody wants them any more
        assert after.records(after.worker(None, {"last": True}, ticks="key")) == [(43, b"")]


def test_worker_whose_handler_cannot_be_loaded_gets_nothing_and_the_others_do(
    feeding: Feeding, caplog: pytest.LogCaptureFixture
) -> None:
    feeding.feeds.run([feeding.wanted("ticks", "one")])
    bad, good = feeding.worker(40, {"no such": 1}, ticks="bad"), feeding.worker(40, ticks="key")
    Played.made["one"].publish(b"x")
    assert feeding.records(bad) == [(40, b"")]
    assert feeding.messages(good, 1) == [(41, b"x")]
    feeding.feeds.run([feeding.wanted("ticks", "one", key="bad")])  # with its own code it can be
    feeding.step_until(lambda: bad.is_closed, "the worker being sent away, to come back for what it has missed")
    assert feeding.messages(feeding.worker(40, ticks="bad"), 1) == [(41, b"x")]
    assert "listener ticks: the handler of a worker cannot be loaded; it gets its messages later" in caplog.text


def test_worker_that_had_more_than_is_known_is_not_told_less(feeding: Feeding) -> None:
    """The journal is empty after an upgrade to a version that cannot read it."""
    worker = feeding.worker(70, ticks="key")
    assert feeding.records(worker) == [(70, b"")]
    feeding.feeds.run([feeding.wanted("ticks", "one")])
    Played.made["one"].publish(b"x")
    assert feeding.messages(worker, 1) == [(71, b"x")]


def test_feed_is_forgotten_when_its_sources_do_not_run_and_nobody_has_it(feeding: Feeding) -> None:
    feeding.feeds.run([feeding.wanted("ticks", "one")])
    worker = feeding.worker(ticks="key")
    feeding.feeds.run([feeding.wanted("ticks", "one", key="later")])
    assert set(feeding.feeds._streams["ticks"].feeds) == {"key", "later"}
    worker.sock.close()
    feeding.step_until(lambda: set(feeding.feeds._streams["ticks"].feeds) == {"later"}, "the old one being forgotten")


# -- operators -------------------------------------------------------------------------------------------------


def test_operators_message_goes_to_whom_it_is_for(feeding: Feeding) -> None:
    feeding.feeds.run([feeding.wanted("ticks"), feeding.wanted("news")])
    worker = feeding.worker(ticks="key", news="key")
    assert feeding.feeds.publish("news", "t", b"to one") == {"listeners": ["news"]}
    assert feeding.feeds.publish(None, "t", b"to all") == {"listeners": ["ticks", "news"]}
    assert feeding.messages(worker, 3) == [(1, b"to one"), (41, b"to all"), (2, b"to all")]


def test_operator_is_told_what_a_handler_raises_though_it_is_no_exception(feeding: Feeding) -> None:
    feeding.feeds.run([feeding.wanted("ticks", "one")])
    answer = feeding.feeds.publish(None, "t", b"exit")
    assert "encode_message raised SystemExit('no reason')" in answer["error"]


def test_operator_is_told_who_refuses_a_message_and_why(feeding: Feeding) -> None:
    feeding.feeds.run([feeding.wanted("ticks"), feeding.wanted("news")])
    answer = feeding.feeds.publish(None, "t", b"refuse")
    assert answer == {
        "error": "nobody takes a message of topic 't': listener ticks: it is refused; publish another; "
        "listener news: it is refused; publish another",
        "status": os.EX_DATAERR,
    }


def test_operator_is_told_where_nobody_takes_messages(feeding: Feeding) -> None:
    feeding.feeds.run([feeding.wanted("ticks")])
    answer = feeding.feeds.publish("news", "t", b"x")
    assert answer["error"].startswith("listener news takes no messages now")
    assert answer["status"] == os.EX_UNAVAILABLE
