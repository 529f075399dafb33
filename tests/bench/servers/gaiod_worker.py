"""What gaiod's servers share: a handler as a worker runs it, without the process around it."""

import gc
from typing import NoReturn

from listener import open_listener

from gaiod import Handler, Watcher
from gaiod.config.tls.certificates import certificate_of, parse_chain, parse_key
from gaiod.process.dispatch import Dispatcher
from gaiod.settings import ListenerSettings, TlsSettings
from gaiod.stats.cells import Layout
from gaiod.worker.listener import Listener
from gaiod.worker.process import GC_THRESHOLDS


def tls_settings(chain: str, key: str) -> TlsSettings:
    """Return settings of TLS with a certificate from two PEM files."""
    return TlsSettings((certificate_of(parse_chain(chain), parse_key(key)),))


def make_listener(handler: Handler, tls: TlsSettings | None = None) -> tuple[Watcher, Listener]:
    """Return a watcher and a listener on it, whose connections `handler` answers; `serve` opens it."""
    servers = handler.servers_of(handler.options)
    layout = Layout((len(servers),))
    cells = memoryview(bytearray(8 * layout.size)).cast("q")
    watcher = Watcher(counters=cells, report_closes=True)
    settings = ListenerSettings(
        name="bench", bind="", handler="bench", connections_max=20_000, servers=servers, tls=tls
    )
    return watcher, Listener(settings, handler, watcher, cells, layout, number=0)


def serve(watcher: Watcher, listener: Listener, port: int = 0, *, send_buffer_bytes: int | None = None) -> NoReturn:
    """Serve on a port, 0 for any free one, until a signal ends the process."""
    listener.start()
    listener.open([open_listener(port, send_buffer_bytes=send_buffer_bytes)])
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    Dispatcher(watcher).run()
    raise AssertionError("nobody ends it but a signal")
