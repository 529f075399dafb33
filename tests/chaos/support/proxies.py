"""A proxy before servers that are daemons themselves: echoes that first say which process they are (`NAMED`)."""

from pathlib import Path

from e2e.support.daemons import Daemon
from e2e.support.starting import Start

from chaos.support.daemons import many

PROXY = """\
workers: {workers}
{more}metrics: {{listen: "127.0.0.1:0"}}
listeners:
  front: {{bind: "127.0.0.1:0", handler: proxy, backlog: 4096, with: {{servers: [{servers}]{options}}}}}
"""


def proxy_config(servers: list[str], *, workers: int = 1, options: str = "", **more: str) -> str:
    """Return a configuration whose proxy, `front`, leads to `servers`; `more` are further keys of the daemon."""
    return PROXY.format(
        workers=workers,
        more="".join(f"{key}: {value}\n" for key, value in more.items()),
        servers=", ".join(f"'{server}'" for server in servers),
        options=f", {options}" if options else "",
    )


def proxied(
    daemon: Start, folder: Path, *, servers: int = 1, workers: int = 1, options: str = "", **more: str
) -> tuple[Daemon, list[Daemon]]:
    """Start the servers and the proxy before them."""
    backends = [daemon(many(folder, workers=1), name=f"server-{number}.yaml") for number in range(servers)]
    addresses = [backend.address("mine") for backend in backends]
    return daemon(proxy_config(addresses, workers=workers, options=options, **more)), backends
