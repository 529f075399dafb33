"""Looking names up: how often, with which answers; the name server is the test's."""

import socket
import sys
import threading
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from core.support.waiting import LIMIT_S
from e2e.support.waiting import wait_until
from gaiod.handlers.proxy.names import Answer, Names, look_up, ttl_of


class Zone:
    """A name server of the test."""

    def __init__(self) -> None:
        self.hosts: dict[str, tuple[str, ...]] = {}
        self.ttls: dict[str, float] = {}
        self.asked: list[str] = []
        self.answers: list[Answer] = []

    def look_up(self, name: str) -> tuple[str, ...]:
        self.asked.append(name)
        if name not in self.hosts:
            raise OSError(f"there is no {name}")
        return self.hosts[name]

    def names(self, *names: str, interval_s: float = 30.0) -> Names:
        """Return what looks names up here."""
        return Names(names, interval_s, self.answers.append, look_up=self.look_up, ttl_of=self.ttls.get)


def test_every_name_is_looked_up_once_at_first_and_again_after_the_interval() -> None:
    zone = Zone()
    zone.hosts = {"a": ("10.0.0.1",), "b": ("10.0.0.2", "10.0.0.3")}
    names = zone.names("b", "a", "b")
    wait_s = names.look_up_due(100.0)
    assert zone.answers == [Answer("a", ("10.0.0.1",)), Answer("b", ("10.0.0.2", "10.0.0.3"))]
    assert 27.0 <= wait_s <= 33.0, "more or less: workers must not ask in step"
    zone.asked.clear()
    assert names.look_up_due(100.0 + wait_s / 2) == pytest.approx(wait_s / 2)
    assert zone.asked == []
    names.look_up_due(133.1)
    assert sorted(zone.asked) == ["a", "b"]


def test_names_are_looked_up_when_their_records_say_so() -> None:
    zone = Zone()
    zone.hosts = {"short": ("10.0.0.1",), "long": ("10.0.0.2",)}
    zone.ttls = {"short": 5.0, "long": 100_000.0}
    names = zone.names("short", "long")
    assert names.look_up_due(0.0) == 5.0
    zone.asked.clear()
    assert names.look_up_due(5.0) == 5.0
    assert zone.asked == ["short"]
    zone.ttls["short"] = 0.0
    assert names.look_up_due(10.0) == 1.0, "never more often than each second"
    names.look_up_due(3600.0)
    assert zone.asked[-2:] == ["short", "long"] or zone.asked[-2:] == ["long", "short"], "and at least each hour"


def test_failure_is_told_and_tried_again_soon_and_then_less_often() -> None:
    zone = Zone()
    zone.ttls = {"a": 3600.0}  # of an earlier answer
    names = zone.names("a", interval_s=10.0)
    now_s, waits = 0.0, []
    for _ in range(6):
        waits.append(names.look_up_due(now_s))
        now_s += waits[-1]
    assert waits == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert zone.answers[0] == Answer("a", (), "there is no a")
    zone.hosts = {"a": ("10.0.0.1",)}
    assert names.look_up_due(now_s) == 3600.0
    del zone.hosts["a"]
    assert names.look_up_due(now_s + 3600.0) == 1.0


def test_name_server_that_does_not_answer_is_no_answer() -> None:
    def look_up(name: str) -> tuple[str, ...]:
        raise socket.gaierror(errors[name], "it failed")

    errors = {"late": socket.EAI_AGAIN, "never": socket.EAI_NONAME}
    told: list[Answer] = []
    Names(errors, 30.0, told.append, look_up=look_up).look_up_due(0.0)
    assert {answer.name: answer.is_final for answer in told} == {"late": False, "never": True}


def test_thread_tells_answers_and_ends_when_nobody_wants_them_any_more() -> None:
    told: list[tuple[Answer, str]] = []
    zone = Zone()
    zone.hosts = {"a": ("10.0.0.1",)}
    names = Names(
        ["a"],
        3600.0,
        lambda answer: told.append((answer, threading.current_thread().name)),
        look_up=zone.look_up,
        ttl_of=zone.ttls.get,
    )
    names.start()
    wait_until(lambda: told, "an answer")
    assert told == [(Answer("a", ("10.0.0.1",)), "gaiod-names")]
    threads = [each for each in threading.enumerate() if each.name == "gaiod-names"]
    del names
    for thread in threads:
        thread.join(LIMIT_S)
        assert not thread.is_alive()


def test_system_finds_addresses_without_a_name_server() -> None:
    assert "127.0.0.1" in look_up("localhost")


def test_name_that_nobody_has_fails() -> None:
    with pytest.raises(OSError, match=r".+"):
        look_up("no-such-name.invalid")


# -- the TTL, with a dnspython of the test ---------------------------------------------------------------


class DNSException(Exception):
    """As dnspython's."""


@pytest.fixture
def dnspython(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[tuple[str, str], int]], None]:
    """Return a function that installs a dnspython that knows these records' TTLs."""

    def install(records: dict[tuple[str, str], int]) -> None:
        def resolve(name: str, kind: str, **_: Any) -> Any:
            if (name, kind) not in records:
                raise DNSException
            return SimpleNamespace(rrset=SimpleNamespace(ttl=records[name, kind]))

        package, exception, resolver = (ModuleType(name) for name in ("dns", "dns.exception", "dns.resolver"))
        exception.DNSException = DNSException  # type: ignore[attr-defined]
        resolver.resolve = resolve  # type: ignore[attr-defined]
        package.exception, package.resolver = exception, resolver  # type: ignore[attr-defined]
        for module in (package, exception, resolver):
            monkeypatch.setitem(sys.modules, module.__name__, module)

    return install


def test_ttl_is_the_shorter_of_both_families(dnspython: Callable[[dict[tuple[str, str], int]], None]) -> None:
    dnspython({("db", "A"): 60, ("db", "AAAA"): 20, ("v6", "AAAA"): 7})
    assert (ttl_of("db"), ttl_of("v6"), ttl_of("hosts-file")) == (20.0, 7.0, None)


def test_nobody_says_a_ttl_where_dnspython_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dns", None)
    monkeypatch.setitem(sys.modules, "dns.exception", None)
    assert ttl_of("localhost") is None
