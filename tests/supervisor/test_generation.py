"""What the workers of a generation are told and given."""

import os
import socket
from collections.abc import Iterator

import pytest

from gaiod.settings import AccessRule, ListenerSettings, LogSettings, NetworkTable, Settings
from gaiod.supervisor.processes.generation import HEARTBEAT_INTERVAL_MAX_S, Code, Generation, Member
from gaiod.supervisor.sockets.listeners import OpenListener
from gaiod.watched_files import KINDS


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    """Four sockets."""
    made = [socket.socket() for _ in range(4)]
    yield made
    for sock in made:
        sock.close()


def generation(*listeners: OpenListener, **more: object) -> Generation:
    """Return one with these listeners, named l0, l1, ..."""
    settings = tuple(
        ListenerSettings(name=f"l{number}", bind="127.0.0.1:0", handler="echo") for number in range(len(listeners))
    )
    return Generation(1, Settings(settings, **more), list(listeners))  # type: ignore[arg-type]


def test_listeners_count_under_their_name_and_the_handlers_label(sockets: list[socket.socket]) -> None:
    listener = OpenListener("x", sockets, shared=True)
    assert list(generation(listener, listener).keys) == [("l0", "echo"), ("l1", "echo")]


def test_servers_of_a_listener_count_under_their_labels_in_the_order_of_the_settings(
    sockets: list[socket.socket],
) -> None:
    listener = OpenListener("x", sockets, shared=True)
    settings = ListenerSettings("front", "127.0.0.1:0", "proxy", servers=("b", "a"))
    assert Generation(1, Settings((settings,)), [listener]).keys == {("front", "proxy"): ("b", "a")}


def test_each_worker_gets_its_sockets_and_all_of_those_that_are_shared(sockets: list[socket.socket]) -> None:
    own, shared = OpenListener("x", sockets[:3], shared=False), OpenListener("y", sockets[3:], shared=True)
    served = generation(own, shared, workers=2)
    assert served.sockets_of(0, ()) == [[sockets[0], sockets[2]], [sockets[3]]]
    assert served.sockets_of(1, ()) == [[sockets[1]], [sockets[3]]]


def test_drained_listener_has_no_sockets(sockets: list[socket.socket]) -> None:
    listener = OpenListener("x", sockets, shared=True)
    assert generation(listener, listener).sockets_of(0, {"l0"}) == [[], sockets]


def test_worker_is_told_a_handler_that_it_finds_without_a_search(sockets: list[socket.socket]) -> None:
    """To look through the installed packages costs a worker 3 MiB."""
    message = generation(OpenListener("x", sockets, shared=True)).message_to(3)
    assert message["worker"] == 3
    assert message["listeners"][0]["handler"] == "gaiod.handlers.echo:Echo"


@pytest.mark.parametrize(("timeout_s", "interval_s"), [(10.0, HEARTBEAT_INTERVAL_MAX_S), (1.0, 0.25)])
def test_worker_beats_several_times_before_it_is_taken_for_hung(timeout_s: float, interval_s: float) -> None:
    assert generation(heartbeat_timeout_s=timeout_s).message_to(0)["heartbeat_interval_s"] == interval_s


def test_workers_take_turns_at_the_cpus_when_they_are_pinned() -> None:
    cpus = sorted(os.sched_getaffinity(0))
    pinned = generation(pin_workers=True)
    assert [pinned.message_to(worker)["cpu"] for worker in range(2 * len(cpus))] == cpus * 2
    assert generation().message_to(0)["cpu"] is None


def test_member_reports_once() -> None:
    told: list[bool] = []
    member = Member(None, generation(), -1, took_over=told.append)  # type: ignore[arg-type]
    member.report(True)
    member.report(False)
    assert told == [True]


# -- feeds -------------------------------------------------------------------------------------------------


def _key(handler: str, code: str = "", **more: object) -> str:
    """Return the key of the feed of a listener."""
    settings = ListenerSettings("ticks", "127.0.0.1:0", handler, **{"sources": ("publish",), **more})  # type: ignore[arg-type]
    made = Code()
    made.versions[handler] = code
    return Generation(1, Settings((settings,)), [OpenListener("x", [], shared=True)], made).feed_keys["ticks"]


def test_feed_is_the_same_as_long_as_the_handler_its_options_and_its_code_are() -> None:
    keys = {
        _key("push"),
        _key("push", "another digest"),
        _key("other"),
        _key("push", options={"topic": "a"}),
        _key("push", sources=("publish", "a")),
    }
    assert len(keys) == 5
    assert keys >= {_key("push", backlog=7, connections_max=3), _key("other")}


def test_worker_is_told_where_messages_come_from_and_which_it_takes(sockets: list[socket.socket]) -> None:
    listener = OpenListener("x", sockets, shared=True)
    assert generation(listener).message_to(0)["feed"] == {"address": "", "keys": {}}
    settings = ListenerSettings("ticks", "127.0.0.1:0", "echo", sources=("publish",))
    fed = Generation(1, Settings((settings,)), [listener])
    assert fed.message_to(0, "\0abc")["feed"] == {"address": "\0abc", "keys": fed.feed_keys}
    assert set(fed.feed_keys) == {"ticks"}


# -- code --------------------------------------------------------------------------------------------------


def _code(**files: str) -> Code:
    """Return the code of one handler, with these files and digests."""
    code = Code()
    code.take({"mine": files})
    return code


def test_version_is_another_when_a_file_has_changed_that_was_needed_before() -> None:
    first = _code(mine="1", library="1")
    for second in (_code(mine="1", library="1"), _code(mine="1", library="1", more="1"), _code(mine="1")):
        second.follow(first)
        assert second.versions == first.versions
        third = _code(mine="1", library="1")
        third.follow(second)
        assert third.versions == first.versions
    for changed in (_code(mine="2", library="1"), _code(mine="1", library="2", more="1")):
        changed.follow(first)
        assert changed.versions != first.versions
    first.follow(Code())
    assert first.versions == _code(mine="1", library="1").versions


def test_listener_is_unchanged_when_its_settings_and_its_code_are_and_what_all_have() -> None:
    def made(version: str = "", backlog: int = 7, **more: object) -> Generation:
        code = Code()
        code.versions["mine"] = version
        listeners = (
            ListenerSettings("one", "127.0.0.1:0", "mine"),
            ListenerSettings("two", "::1", "x", backlog=backlog),
        )
        return Generation(1, Settings(listeners, **more), [], code)  # type: ignore[arg-type]

    before = made()
    assert made(workers=7, drain_timeout_s=1.0, heartbeat_timeout_s=1.0).unchanged(before) == {"one", "two"}
    assert made("another").unchanged(before) == {"two"}
    assert made(backlog=8).unchanged(before) == {"one"}
    assert made(slow_hook_s=7.0).unchanged(before) == set()
    assert made(log=LogSettings("json")).unchanged(before) == set()


def test_what_files_have_is_renewed_and_later_workers_are_told_so() -> None:
    rule = AccessRule(False, "file:/x", NetworkTable())
    served = Generation(1, Settings((ListenerSettings("l0", "127.0.0.1:0", "echo", access=(rule,)),)), [])
    value = {"v4": (1, 2), "v6": (), "unix": False}
    assert served.renew(KINDS["access"], ("/x",), value)
    assert not served.renew(KINDS["access"], ("/x",), value)
    told = served.message_to(0)["listeners"][0]["access"]
    assert told == ({"allows": False, "of": "file:/x", "table": value},)
    assert not served.renew(KINDS["access"], ("/y",), value)
