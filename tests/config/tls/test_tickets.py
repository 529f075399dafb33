"""Tickets, and how long their keys are kept."""

import pytest

from gaiod.config.errors import Refused
from gaiod.config.tls.tickets import check_tickets
from gaiod.settings import TicketSettings


def test_tickets_may_be_good_for_as_long_as_their_keys_are_kept() -> None:
    check_tickets(TicketSettings(20.0, 10.0))
    with pytest.raises(Refused, match=r"keys are kept for twice rotate only, 20 s; write rotate: 10.5s or more"):
        check_tickets(TicketSettings(21.0, 10.0))
