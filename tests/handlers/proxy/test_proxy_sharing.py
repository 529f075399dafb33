"""What a proxy tells its other workers, and what it makes of what they tell. The others are the test."""

import logging
import socket
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
from gaiod.handlers.proxy.names import Answer
from worker.support.proxying import Backend, Proxying, closed_address, text_of

from gaiod import AdminState
from gaiod.handler.admin_state import admin_key
from gaiod.worker.shared_state import SharedState

Start = Callable[..., Proxying]
CHECK = {"interval": 0.05, "timeout": 0.5, "rise": 2, "fall": 3}
PASSIVE = {"failures": 1, "eject": 60.0, "eject_max": 60.0, "slow_start": 0.0}


def take(proxy: Proxying, key: str, value: Any) -> None:
    """Let another worker share a value."""
    proxy.listener.take_shared(key, value, is_own=False)


def shared(proxy: Proxying, key: str) -> Any:
    """Return what is shared."""
    return proxy.listener.shared.get(key)


def test_server_that_another_worker_found_down_gets_no_client_and_comes_back(start: Start, backend: Backend) -> None:
    proxy = start(backend, check={**CHECK, "interval": 60.0}, passive=PASSIVE)
    proxy.listener.lead(False)
    key, stats = f"checks {backend.address}", proxy.handler.pool.servers[0].stats
    take(proxy, key, {"why": "connect: Connection refused", "up_s": None})
    assert not stats.up
    with proxy.connect() as client:
        assert proxy.is_ended(client)
    assert proxy.unavailable() == {"down": 1}
    assert proxy.handler.pool.troubles() == [
        f"Server {backend.address} is down: its checks fail; connect: Connection refused."
    ]
    take(proxy, key, {"why": None, "up_s": time.monotonic()})
    assert stats.up
    client, far = proxy.pair(backend)
    proxy.carry(client, far, b"hello")


def test_clients_of_a_server_that_another_worker_found_down_are_closed_where_that_is_wanted(
    start: Start, backend: Backend
) -> None:
    proxy = start(backend, check={**CHECK, "interval": 60.0}, on_down="close")
    client, _ = proxy.pair(backend)
    take(proxy, f"checks {backend.address}", {"why": "connect: Connection refused", "up_s": None})
    assert proxy.is_ended(client)
    assert proxy.closes() == {"server_down": 1}


def test_leader_tells_what_its_checks_say_and_checks_no_more_when_it_leads_no_more(start: Start) -> None:
    address = closed_address()
    label = text_of(address)
    proxy = start(label, check=CHECK, passive=PASSIVE)
    proxy.step_until(lambda: shared(proxy, f"checks {label}"), "a check")
    assert shared(proxy, f"checks {label}")["why"].startswith("connect: Connection refused, after")
    proxy.listener.lead(False)
    failed = proxy.count_of_server("checks_failed")
    until_s = time.monotonic() + 4 * CHECK["interval"]
    proxy.step_until(lambda: time.monotonic() > until_s, "some time")
    assert proxy.count_of_server("checks_failed") == failed


def test_first_passed_check_is_told_so_that_the_next_leader_counts_to_fall(start: Start, backend: Backend) -> None:
    proxy = start(backend, check=CHECK, passive=PASSIVE)
    proxy.step_until(lambda: shared(proxy, f"checks {backend.address}"), "a check")
    assert shared(proxy, f"checks {backend.address}") == {"why": None, "up_s": None}
    proxy.listener.lead(False)
    backend.sock.close()
    proxy.listener.lead(True)
    proxy.step_until(lambda: not proxy.handler.pool.servers[0].stats.up, "the server being down")
    assert proxy.count_of_server("checks_failed") == 3


def test_new_leader_goes_on_from_what_the_last_one_knew(start: Start) -> None:
    label = text_of(closed_address())
    proxy = start(label, check=CHECK, passive=PASSIVE)
    proxy.listener.lead(False)
    take(proxy, f"checks {label}", {"why": "expect: nothing", "up_s": None})
    backend = Backend(_bound(label))
    proxy.listener.lead(True)
    proxy.step_until(lambda: proxy.handler.pool.servers[0].stats.up, "the server being up")
    assert proxy.count_of_server("checks_passed") == CHECK["rise"]
    backend.close()


def _bound(label: str) -> Any:
    host, _, port = label.rpartition(":")
    return socket.create_server((host, int(port)))


def test_ejection_is_told_and_taken_over(start: Start, backend: Backend) -> None:
    dead = text_of(closed_address())
    proxy = start(dead, backend, passive=PASSIVE)
    key, stats = f"ejection {dead}", proxy.handler.pool.servers[0].stats
    for _ in range(2):
        proxy.pair(backend)
    told = shared(proxy, key)
    assert (told["ejections"], told["why"]) == (1, "it could not be connected to; Connection refused")
    assert 55 < told["until_s"] - time.monotonic() <= 60
    proxy.listener.take_shared(key, told, is_own=True)  # the supervisor repeats it
    take(proxy, key, {**told, "until_s": 0.0, "returned_s": time.monotonic()})
    assert stats.up
    take(proxy, key, {**told, "ejections": 2})
    assert not stats.up
    for _ in range(4):
        proxy.pair(backend)
    assert proxy.count_of_server("failed_refused") == 1
    take(proxy, key, None)
    assert stats.up


def test_slow_start_of_a_server_goes_on_where_it_was(start: Start, backends: Callable[[int], list[Backend]]) -> None:
    first, second = backends(2)
    proxy = start(first, second, check={**CHECK, "interval": 60.0}, passive={**PASSIVE, "slow_start": 100.0})
    endpoint = proxy.handler.pool.servers[0].endpoints[0]
    take(proxy, f"checks {first.address}", {"why": None, "up_s": time.monotonic() - 50.0})
    assert endpoint.weight == pytest.approx(0.5, abs=0.1)
    take(proxy, f"checks {first.address}", {"why": None, "up_s": time.monotonic() - 101.0})
    assert endpoint.returned_s is not None


def test_what_is_shared_of_servers_that_are_gone_is_taken_back_by_the_leader(start: Start, backend: Backend) -> None:
    proxy = start(backend)
    for key in ("name old.test", "checks 10.0.0.1:1", f"checks {backend.address}", "ejection old", "whatever"):
        take(proxy, key, {"hosts": [], "error": "", "why": None, "up_s": None})
    proxy.listener.lead(False)
    proxy.listener.lead(True)
    assert dict(proxy.listener.shared) == {}, "there are no checks any more either"


# -- what an operator wants ------------------------------------------------------------------------------


def order(proxy: Proxying, number: int, mode: str, weight: int | None = None) -> None:
    """Say what is wanted of the n-th server."""
    label = proxy.handler.pool.servers[number].label
    state = AdminState(mode, weight, time.monotonic())
    proxy.listener.take_shared(admin_key(label), asdict(state), is_own=False)


def test_drained_server_gets_no_client_and_keeps_those_that_it_has(
    start: Start, backends: Callable[[int], list[Backend]]
) -> None:
    first, second = backends(2)
    proxy = start(first, {"address": second.address, "backup": True}, passive=PASSIVE)
    client, far = proxy.pair(first)
    order(proxy, 0, "drain")
    assert proxy.handler.pool.servers[0].stats.up, "it is not down"
    proxy.carry(client, far, b"goes on")
    proxy.pair(second)
    notes = list(proxy.handler.notes_on(proxy.listener.clients()[0]))
    assert f"Its server is {first.address}, to which an operator lets nobody else." in notes
    order(proxy, 1, "ready", 0)
    with proxy.connect() as late:
        assert proxy.is_ended(late)
    assert proxy.unavailable() == {"drained": 1}
    assert ("no_server", "gaiod", "drain", "drained", "queue", "-") in proxy.ends()
    assert proxy.handler.pool.troubles() == [
        f"Server {each.address} gets no clients: an operator wants that." for each in (first, second)
    ]
    order(proxy, 0, "ready")
    proxy.pair(first)


def test_server_comes_back_with_little(start: Start, backend: Backend) -> None:
    proxy = start({"address": backend.address, "weight": 10}, passive={**PASSIVE, "slow_start": 100.0})
    endpoint = proxy.handler.pool.servers[0].endpoints[0]
    order(proxy, 0, "drain")
    order(proxy, 0, "ready", 20)
    assert endpoint.weight == pytest.approx(2.0, abs=0.1)


def test_first_failed_check_after_maintenance_decides_alone(start: Start, backend: Backend) -> None:
    proxy = start(backend, check={**CHECK, "fall": 100}, passive=PASSIVE)
    key = f"checks {backend.address}"
    proxy.step_until(lambda: shared(proxy, key), "a check")
    order(proxy, 0, "maint")
    assert shared(proxy, key) is None
    backend.close()
    order(proxy, 0, "ready")
    proxy.step_until(lambda: not proxy.handler.pool.servers[0].stats.up, "the server being down")
    assert proxy.count_of_server("checks_failed") == 1


# -- names -----------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Which names were looked up at each time that somebody began to; no answer comes by itself."""
    asked: list[set[str]] = []
    monkeypatch.setattr(
        "gaiod.handlers.proxy.Names.start", lambda names: asked.append({name for _, name in names._due})
    )
    return asked


def test_leader_looks_all_names_up_and_others_what_they_know_nothing_of(
    start: Start, asked: list[set[str]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gaiod.handler.proxy")
    proxy = start("a.test:80", "b.test:80", passive=PASSIVE)
    assert asked == [{"a.test", "b.test"}] * 2, "when it starts, and when it leads"
    assert proxy.listener.is_delayed
    proxy.handler.on_post(Answer("a.test", ("10.0.0.1",)))
    assert shared(proxy, "name a.test") == {"hosts": ["10.0.0.1"], "error": ""}
    assert proxy.listener.is_delayed
    proxy.listener.lead(False)
    assert asked[2:] == [{"b.test"}]
    take(proxy, "name b.test", {"hosts": ["10.0.0.2"], "error": ""})
    assert not proxy.listener.is_delayed
    proxy.listener.lead(True)
    proxy.listener.lead(False)
    assert asked[3:] == [{"a.test", "b.test"}]
    assert [message for message in caplog.messages if "it is now" in message] == [
        "listener front: server a.test:80: it is now 10.0.0.1"
    ]


def test_answer_stays_when_a_lookup_fails(start: Start, asked: list[set[str]]) -> None:
    proxy = start("a.test:80", passive=PASSIVE)
    proxy.handler.on_post(Answer("a.test", ("10.0.0.1",)))
    proxy.handler.on_post(Answer("a.test", (), "no name server", is_final=False))
    assert shared(proxy, "name a.test") == {"hosts": ["10.0.0.1"], "error": "no name server"}
    assert [endpoint.target[0] for endpoint in proxy.handler.pool.servers[0].endpoints] == ["10.0.0.1"]


def test_worker_starts_with_the_last_answer_though_the_name_server_is_gone(
    start: Start, asked: list[set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"hosts": ["127.0.0.1"], "error": "no name server"}
    monkeypatch.setattr("gaiod.worker.listener.SharedState", _with({"name a.test": known}))
    proxy = start("a.test:80", passive=PASSIVE)
    assert not proxy.listener.is_delayed
    assert asked == [{"a.test"}], "as the leader"
    assert str(proxy.handler.pool.choose(0.0, 0)) == "a.test:80 (127.0.0.1)"


def _with(values: dict[str, Any]) -> Any:
    return lambda watcher, shared, *others: SharedState(watcher, values, *others)


@pytest.mark.parametrize("final", [True, False])
def test_name_that_does_not_exist_is_not_waited_for_and_a_silent_name_server_is_for_a_while(
    start: Start,
    asked: list[set[str]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    final: bool,
) -> None:
    monkeypatch.setattr("gaiod.handlers.proxy.START_S", 0.1)
    proxy = start("a.test:80", passive=PASSIVE)
    proxy.handler.on_post(Answer("a.test", (), "it failed", is_final=final))
    assert proxy.listener.is_delayed != final
    proxy.step_until(lambda: not proxy.listener.is_delayed, "the worker being ready")
    assert ("no answer for a.test within 0.1 s: clients are accepted, and wait for a server" in caplog.text) != final
    assert not proxy.handler.pool.servers[0].stats.up
