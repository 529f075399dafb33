"""haproxy and nginx as proxies: where they are, what they need, and how each is configured."""

import re
import shutil
import subprocess
from pathlib import Path

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
    bind 127.0.0.1:{port}
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
        listen 127.0.0.1:{port} backlog={backlog};
        proxy_pass 127.0.0.1:{backend_port};
    }}
}}
"""


def _command(name: str) -> tuple[str, ...]:
    """Return what starts a program: that of the root, else that of the machine; nothing if there is neither.

    A program of the root is started by the root's own loader, which finds the libraries there. No chroot is needed,
    so configurations and ports are where they are for every other server.
    """
    program = NEXT_ROOT / "usr/sbin" / name
    for loader in NEXT_ROOT.glob("lib*/ld-linux*.so.*"):
        if program.exists():
            libraries = ":".join(map(str, NEXT_ROOT.glob("usr/lib/*-linux-gnu*")))
            return (str(loader), "--library-path", libraries, str(program))
    found = shutil.which(name)
    return (found,) if found is not None else ()


def has_haproxy() -> bool:
    """Tell whether there is haproxy."""
    return bool(_command("haproxy"))


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


def haproxy_command(folder: Path, port: int, backend_port: int, *, splice: bool) -> tuple[str, ...]:
    """Write haproxy's configuration; return the command that runs it in the foreground, in one process.

    Not `option splice-auto`: it splices only what streams one way for a while. Of 11,000 pieces of echoes of
    256 to 262144 bytes it spliced 8.
    """
    config = folder / "haproxy.cfg"
    config.write_text(
        HAPROXY.format(
            connections_max=CONNECTIONS_MAX,
            splicing="option splice-request\n    option splice-response" if splice else "",
            port=port,
            backlog=BACKLOG,
            backend_port=backend_port,
        )
    )
    return (*_command("haproxy"), "-db", "-q", "-f", str(config))


def nginx_load_module() -> str | None:
    """Return the line that gives nginx its `stream`, "" where that is built in; None: it cannot be had."""
    command = _command("nginx")
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


def nginx_command(folder: Path, port: int, backend_port: int) -> tuple[str, ...]:
    """Write nginx's configuration; return the command that runs it in the foreground, in one process."""
    config = folder / "nginx.conf"
    config.write_text(
        NGINX.format(
            load_module=nginx_load_module(),
            sockets_max=2 * CONNECTIONS_MAX,
            port=port,
            backlog=BACKLOG,
            backend_port=backend_port,
        )
    )
    return (*_command("nginx"), "-p", str(folder), "-e", "stderr", "-c", str(config))
