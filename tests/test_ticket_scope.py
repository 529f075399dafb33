"""What TLS tickets are good for."""

from dataclasses import dataclass, fields
from typing import Any

import pytest

from gaiod.settings import CertificateSettings, ListenerSettings, TicketSettings, TlsSettings
from gaiod.ticket_scope import BESIDE_THE_POINT, scope_of


def scope(name: str = "app", **options: Any) -> str | None:
    options = {"certificates": (), **options}
    return scope_of(ListenerSettings(name=name, bind="127.0.0.1:0", handler="echo", tls=TlsSettings(**options)))


def test_tickets_are_good_for_one_listener() -> None:
    assert scope() != scope("other")


@pytest.mark.parametrize(
    "options",
    [{"certificates": (CertificateSettings("", "", ("example.org",), 4e9),)}, {"tickets": TicketSettings(10.0, 5.0)}],
)
def test_tickets_stay_good_when_something_changes_that_clients_are_not_asked(options: dict[str, Any]) -> None:
    assert scope() == scope(**options)


def test_listener_without_tickets_has_no_scope() -> None:
    assert scope(tickets=None) is None
    assert scope_of(ListenerSettings(name="app", bind="127.0.0.1:0", handler="echo")) is None


@dataclass(frozen=True, slots=True)
class Strict(TlsSettings):
    """Settings that ask something of clients."""

    more: str = ""


def test_whatever_clients_are_asked_makes_tickets_of_its_own() -> None:
    def strict(more: str) -> str | None:
        return scope_of(ListenerSettings("app", "127.0.0.1:0", "echo", tls=Strict((), more=more)))

    assert len({scope(), strict(""), strict("one authority"), strict("another")}) == 4


def test_settings_that_are_beside_the_point_are_some() -> None:
    assert {each.name for each in fields(TlsSettings)} >= BESIDE_THE_POINT
