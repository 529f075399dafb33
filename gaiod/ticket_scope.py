"""What TLS tickets are good for: those of a scope have the same keys.

A resumed session shows no certificate: what was found out about the client at first is believed again. So a ticket is
good for one listener, as long as that asks the same of its clients (CVE-2025-23419).
"""

import json
from dataclasses import asdict

from gaiod.settings import ListenerSettings

BESIDE_THE_POINT = frozenset({
    "accepts_truncation", "alpn", "certificates", "groups", "handshake_timeout_s", "refuses_unknown_names",
    "starts_by_handler", "suites", "tickets", "versions",
})  # fmt: skip
"""Settings of TLS that may change and leave tickets good. Any other, also a new one, says what clients have to be."""


def scope_of(listener: ListenerSettings) -> str | None:
    """Return the scope of a listener's tickets; None: it gives none."""
    if listener.tls is None or listener.tls.tickets is None:
        return None
    import hashlib  # late: it takes 4 ms, and only those who serve TLS need it

    asked = {key: value for key, value in asdict(listener.tls).items() if key not in BESIDE_THE_POINT}
    return hashlib.sha256(json.dumps([listener.name, asked], sort_keys=True).encode()).hexdigest()
