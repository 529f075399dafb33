"""haproxy and nginx as proxies: where they are, what they need, and how each is configured."""

import re
import shutil
import subprocess
from pathlib import Path

from harness.tls import Pair

NEXT_ROOT = Path(__file__).parents[3] / ".cache" / "debian-testing"
"""The root of Debian testing that `tests/next_pythons` makes. What is in there is newer than what a machine has."""

CONNECTIONS_MAX = 5000
"""More than any row opens. With haproxy it comes to 12,500 descriptors, pipes included."""
BACKLOG = 4096
"""As that of the other servers."""

HAPROXY = """\
global
    nbthread 1
    maxconn {connections_max}
defaults
    mode tcp
    {splicing}
    timeout connect 1h
    timeout client 1h
    timeout server 1h
frontend clients
    bind 127.0.0.1:{port} {tls}
    backlog {backlog}
    default_backend servers
backend servers
    server echo 127.0.0.1:{backend_port}
"""

NGINX = """\
{load_module}
daemon off;
master_process off;
worker_processes 1;
pid nginx.pid;
error_log stderr error;
events {{
    worker_connections {sockets_max};
}}
stream {{
    access_log off;
    tcp_nodelay on;
    proxy_connect_timeout 1h;
    proxy_timeout 1h;
    server {{
        listen 127.0.0.1:{port} {listens_with} backlog={backlog};
        {tls}
        proxy_pass 127.0.0.1:{backend_port};
    }}
}}
"""


def _command(name: str, *, of_this_machine: bool = False) -> tuple[str, ...]:
    """Return what starts a program: that of the root, else that of the machine; nothing if there is neither.

    A program of the root is started by the root's own loader, which finds the libraries there. No chroot is needed,
    so configurations and ports are where they are for every other server.
    """
    program = NEXT_ROOT / "usr/sbin" / name
    for loader in NEXT_ROOT.glob("lib*/ld-linux*.so.*"):
        if program.exists() and not of_this_machine:
            libraries = ":".join(map(str, NEXT_ROOT.glob("usr/lib/*-linux-gnu*")))
            return (str(loader), "--library-path", libraries, str(program))
    found = shutil.which(name)
    return (found,) if found is not None else ()


def has_haproxy(*, of_this_machine: bool = False) -> bool:
    """Tell whether there is haproxy."""
    return bool(_command("haproxy", of_this_machine=of_this_machine))


def haproxy_version() -> str | None:
    """Return the version of the haproxy that would run; None: there is none."""
    return _said_version("haproxy", r"version (\S+)")


def nginx_version() -> str | None:
    """Return the version of the nginx that would run; None: there is none."""
    return _said_version("nginx", r"nginx/(\S+)")


def _said_version(program: str, pattern: str) -> str | None:
    command = _command(program)
    if not command:
        return None
    said = subprocess.run((*command, "-v"), capture_output=True, text=True, check=False)
    found = re.search(pattern, said.stdout + said.stderr)  # nginx says it on standard error
    return found[1] if found else None


def haproxy_command(
    folder: Path, port: int, backend_port: int, *, splice: bool = False, pair: Pair | None = None
) -> tuple[str, ...]:
    """Write haproxy's configuration; return the command that runs it in the foreground, in one process.

    With a pair it speaks TLS, and is the machine's.

    Not `option splice-auto`: it splices only what streams one way for a while. Of 11,000 pieces of echoes of
    256 to 262144 bytes it spliced 8.
    """
    config = folder / "haproxy.cfg"
    tls = ""
    if pair is not None:
        both = folder / "both.pem"
        both.write_text(pair.chain.read_text() + pair.key.read_text())
        tls = f"ssl crt {both} ssl-min-ver TLSv1.3"
    config.write_text(
        HAPROXY.format(
            tls=tls,
            connections_max=CONNECTIONS_MAX,
            splicing="option splice-request\n    option splice-response" if splice else "",
            port=port,
            backlog=BACKLOG,
            backend_port=backend_port,
        )
    )
    return (*_command("haproxy", of_this_machine=pair is not None), "-db", "-q", "-f", str(config))


def nginx_load_module(*, of_this_machine: bool = False) -> str | None:
    """Return the line that gives nginx its `stream`, "" where that is built in; None: it cannot be had."""
    command = _command("nginx", of_this_machine=of_this_machine)
    if not command:
        return None
    built = subprocess.run((*command, "-V"), capture_output=True, text=True, check=False).stderr.split()
    if "--with-stream" in built:
        return ""
    for word in built:
        folder = word.removeprefix("--modules-path=")
        if command[-1].startswith(str(NEXT_ROOT)):
            folder = f"{NEXT_ROOT}{folder}"
        module = Path(folder) / "ngx_stream_module.so"
        if word.startswith("--modules-path=") and module.exists():
            return f"load_module {module};"
    return None


def nginx_command(folder: Path, port: int, backend_port: int, *, pair: Pair | None = None) -> tuple[str, ...]:
    """Write nginx's configuration; return the command that runs it in the foreground, in one process.

    With a pair it speaks TLS, and is the machine's.
    """
    has_tls = pair is not None
    tls = ""
    if pair is not None:
        tls = f"ssl_certificate {pair.chain}; ssl_certificate_key {pair.key}; ssl_protocols TLSv1.3;"
    config = folder / "nginx.conf"
    config.write_text(
        NGINX.format(
            load_module=nginx_load_module(of_this_machine=has_tls),
            listens_with="ssl" if has_tls else "",
            tls=tls,
            sockets_max=2 * CONNECTIONS_MAX,
            port=port,
            backlog=BACKLOG,
            backend_port=backend_port,
        )
    )
    return (*_command("nginx", of_this_machine=has_tls), "-p", str(folder), "-e", "stderr", "-c", str(config))
