"""The keys that encrypt TLS tickets: made here, the same for all workers, and never written anywhere.

A ticket is what a client resumes its session with: the session itself, encrypted by the server. Whoever has the key
can read the sessions of TLS 1.2, so a key is replaced often. The newest of three encrypts, the older ones decrypt.
"""

import secrets
import time
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Any

from gaiod.core.engine import shares_tickets
from gaiod.core.tls import TICKET_KEY_BYTES, TICKET_KEYS_MAX
from gaiod.settings import ListenerSettings
from gaiod.ticket_scope import scope_of

HandedOverKeys = dict[str, list[tuple[str, float]]]
"""By scope, the newest first: a key as hexadecimal text, and when it was made (CLOCK_MONOTONIC)."""


@dataclass(frozen=True, slots=True)
class _Key:
    text: str
    made_s: float


class TicketKeys:
    """Keys by their scope (`gaiod.ticket_scope`). They outlive workers and generations."""

    def __init__(self) -> None:
        self._of: dict[str, list[_Key]] = {}

    def of(self, listeners: Iterable[ListenerSettings]) -> dict[str, list[str]]:
        """Return the keys for some listeners, by scope, the newest first: hexadecimal. It makes what is missing."""
        scopes = [scope for each in listeners if (scope := scope_of(each)) is not None]
        if scopes and not shares_tickets():
            return {}  # nobody would use them
        for scope in scopes:
            if scope not in self._of:
                self._of[scope] = [_made()]
        return {scope: [key.text for key in self._of[scope]] for scope in scopes}

    def rotate(self, listeners: Iterable[ListenerSettings]) -> bool:
        """Make a new key for each of some listeners whose newest is old enough; tell whether there was one."""
        now_s, rotated = time.monotonic(), False
        for each in listeners:
            tickets, keys = each.tls and each.tls.tickets, self._of.get(scope_of(each) or "", [])
            if tickets and keys and now_s >= keys[0].made_s + tickets.rotate_s:
                keys.insert(0, _made())
                del keys[TICKET_KEYS_MAX:]
                rotated = True
        return rotated

    def age_s(self, listener: ListenerSettings) -> float | None:
        """Return how old the newest key of a listener is; None: it has none."""
        keys = self._of.get(scope_of(listener) or "")
        return time.monotonic() - keys[0].made_s if keys else None

    def forget(self, scopes: Container[str | None]) -> None:
        """Forget all keys of other scopes."""
        self._of = {scope: keys for scope, keys in self._of.items() if scope in scopes}

    def handed_over(self) -> HandedOverKeys:
        """Return everything, for the daemon that takes over."""
        return {scope: [(key.text, key.made_s) for key in keys] for scope, keys in self._of.items()}

    def adopt(self, handed_over: dict[str, Any]) -> None:
        """Take everything over from the daemon before this one."""
        self._of = {scope: [_Key(text, made_s) for text, made_s in keys] for scope, keys in handed_over.items()}


def _made() -> _Key:
    return _Key(secrets.token_hex(TICKET_KEY_BYTES), time.monotonic())
