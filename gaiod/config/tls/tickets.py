"""The tickets of a listener, and the keys that encrypt them."""

from gaiod.config.errors import Refused
from gaiod.core.tls import TICKET_KEYS_MAX
from gaiod.settings import TicketSettings


def check_tickets(tickets: TicketSettings) -> None:
    """Look whether keys are kept for as long as tickets are good.

    Raises:
        Refused: they are not.
    """
    kept = TICKET_KEYS_MAX - 1  # times rotate, at least
    if tickets.lifetime_s > kept * tickets.rotate_s:
        raise Refused(
            f"has a lifetime of {tickets.lifetime_s:g} s, but keys are kept for twice rotate only, "
            f"{kept * tickets.rotate_s:g} s; write rotate: {tickets.lifetime_s / kept:g}s or more, or a shorter "
            "lifetime"
        )
