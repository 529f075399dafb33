"""Keys of TLS tickets: by scope, three at most, and the newest first."""

import json
from typing import Any

import pytest

from gaiod.settings import ListenerSettings, TicketSettings, TlsSettings
from gaiod.supervisor.processes import ticket_keys
from gaiod.supervisor.processes.ticket_keys import TicketKeys
from gaiod.ticket_scope import scope_of

HOUR_S = 3600.0


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which only the test moves on; and an engine whose workers use these keys."""
    now_s = [1000.0]
    monkeypatch.setattr("gaiod.supervisor.processes.ticket_keys.time.monotonic", lambda: now_s[0])
    monkeypatch.setattr(ticket_keys, "shares_tickets", lambda: True)
    return now_s


def listener(name: str = "app", **options: Any) -> ListenerSettings:
    return ListenerSettings(name=name, bind="127.0.0.1:0", handler="echo", tls=TlsSettings((), **options))


APP = listener(tickets=TicketSettings(2 * HOUR_S, HOUR_S))


def own(keys: TicketKeys, of: ListenerSettings = APP) -> list[str]:
    return keys.of([of])[scope_of(of) or ""]


def test_listeners_have_keys_of_their_own_and_keep_them() -> None:
    keys, other = TicketKeys(), listener("other")
    made = keys.of([APP, other])
    assert len(made) == 2
    ((one,), (two,)) = made.values()
    assert one != two
    assert len(bytes.fromhex(one)) == 80
    assert keys.of([APP, other]) == made


def test_listener_without_tickets_has_no_key() -> None:
    keys = TicketKeys()
    plain = ListenerSettings(name="plain", bind="127.0.0.1:0", handler="echo")
    assert keys.of([plain, listener(tickets=None)]) == {}
    assert keys.age_s(plain) is None
    assert not keys.rotate([plain, listener(tickets=None)])


def test_engine_that_uses_no_keys_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ticket_keys, "shares_tickets", lambda: False)
    keys = TicketKeys()
    assert keys.of([APP]) == {}
    assert keys.age_s(APP) is None


def test_new_key_comes_first_when_it_is_time_and_the_fourth_is_forgotten(clock: list[float]) -> None:
    keys = TicketKeys()
    seen = own(keys)
    clock[0] += HOUR_S - 1
    assert not keys.rotate([APP])
    assert keys.age_s(APP) == HOUR_S - 1
    for _ in range(4):
        clock[0] += HOUR_S
        assert keys.rotate([APP])
        assert not keys.rotate([APP])
        assert keys.age_s(APP) == 0
        seen.insert(0, own(keys)[0])
        assert own(keys) == seen[:3]
    assert len(set(seen)) == 5


def test_keys_are_handed_over_with_their_age_and_forgotten_with_their_scope(clock: list[float]) -> None:
    keys, successor = TicketKeys(), TicketKeys()
    before = own(keys)
    successor.adopt(json.loads(json.dumps(keys.handed_over())))
    assert own(successor) == before
    clock[0] += 10
    assert successor.age_s(APP) == 10
    successor.forget({scope_of(listener("other"))})
    assert own(successor) != before
    keys.forget({scope_of(APP)})
    assert own(keys) == before
