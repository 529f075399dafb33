"""Servers that speak TLS and are not gaiod: run for a test, their output in a file, ended by their process."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.support.waiting import LIMIT_S

from e2e.support.waiting import wait_until
from gaiod.core.tls import Certificate


def written(folder: Path, name: str, certificate: Certificate) -> Certificate:
    """Write a certificate into a folder; return the paths of its chain and its key."""
    chain, key = folder / f"{name}.pem", folder / f"{name}.key"
    chain.write_text(certificate.chain)
    key.touch(0o600)
    key.write_text(certificate.key)
    return Certificate(str(chain), str(key))


@dataclass(frozen=True)
class OpensslServer:
    """An `openssl s_server`."""

    address: str
    output: Path

    @property
    def log(self) -> str:
        """What it has said."""
        return self.output.read_text(errors="replace")


@contextmanager
def openssl_server(folder: Path, certificate: Certificate, *more: str) -> Iterator[OpensslServer]:
    """Run `openssl s_server`, which sends each line back with its end first, one client after the other.

    Args:
        folder: a folder of its own.
        certificate: what it shows.
        more: further arguments.
    """
    folder.mkdir()
    own = written(folder, "own", certificate)
    output = folder / "s_server.log"
    command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", own.chain, "-cert_chain", own.chain]
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*command, "-key", own.key, "-rev", *more], stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )

    def address() -> str | None:
        assert process.poll() is None, output.read_text()
        found = re.search(r"^ACCEPT (127\.0\.0\.1:\d+)\n", output.read_text(), re.MULTILINE)
        return None if found is None else found[1]

    try:
        yield OpensslServer(wait_until(address, "openssl s_server listening"), output)
    finally:
        process.kill()
        process.wait(LIMIT_S)
