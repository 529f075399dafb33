"""What the standard library's `ssl` is told of a client: whom it believes, what it shows, which server it wants.

`_clients.pyx` is the same for the compiled engine.
"""

import ssl
from typing import Any
from weakref import WeakValueDictionary

from gaiod.core.contexts import load, new_context
from gaiod.core.tls import ClientTls

_trusts: WeakValueDictionary[Any, ssl.SSLContext] = WeakValueDictionary()
"""By what they were made of: those of this machine's authorities take 30 ms to make."""


class Client:
    """What all sessions with a server have in common. For one watcher: its thread alone has sessions of it."""

    def __init__(self, options: ClientTls) -> None:
        """Make it.

        Raises:
            ssl.SSLError, ValueError: a certificate or a key is none, or they are no pair.
            OSError: there is no memory for them.
        """
        key = (options.ca, options.certificate, options.verify, options.versions, options.alpn)
        context = _trusts.get(key)
        if context is None:
            context = _trusts[key] = _context_of(options)
        self._context = context
        self.name = options.name
        self.verifies = options.verify
        self.accepts_truncation = options.accepts_truncation
        self._ticket: ssl.SSLSession | None = None

    def wrap(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        """Return what speaks TLS between two memories."""
        return self._context.wrap_bio(incoming, outgoing, server_hostname=self.name or None, session=self._ticket)

    def keep_ticket(self, of: ssl.SSLObject) -> bool:
        """Keep what continues a session, if there is such a thing yet: the newest alone. Tell whether there was."""
        session = of.session
        if session is None or not session.has_ticket:
            return False
        self._ticket = session
        return True


def _context_of(options: ClientTls) -> ssl.SSLContext:
    context = new_context(ssl.PROTOCOL_TLS_CLIENT, options)
    if options.certificate is not None:
        load(context, options.certificate)
    if not options.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    # Whoever names an authority that is not the root means that one, as other programs have it by now.
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    if options.ca is None:
        context.set_default_verify_paths()
    else:
        context.load_verify_locations(cadata=options.ca)
    return context
