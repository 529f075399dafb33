"""Servers that are not gaiod: run for a test, their output in a file, ended by their process."""

import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from core.support.waiting import LIMIT_S

from e2e.support.clients import connect
from e2e.support.waiting import wait_until


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on; nothing keeps it free."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
    return port


@contextmanager
def serving(folder: Path, command: Sequence[str], address: str) -> Iterator[None]:
    """Run a server in a folder; begin when it listens at its address, as the configuration writes it."""
    output = folder / f"{Path(command[0]).name}.log"
    with output.open("wb") as file:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=file, stderr=file)

    def listens() -> bool:
        assert process.poll() is None, output.read_text()
        try:
            connect(address).close()
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        return True

    try:
        wait_until(listens, f"{command[0]} listening")
        yield
    finally:
        process.kill()  # nothing of it is kept
        process.wait(LIMIT_S)
