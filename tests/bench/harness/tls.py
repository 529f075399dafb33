"""What the benchmark of TLS has besides: a certificate, and the C programs with TLS in them."""

import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from harness.processes import BenchError, compile_c
from harness.servers import BENCH, Programs

COMPILED_WITH = ("-DWITH_TLS", "-lssl", "-lcrypto")
MAKE = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """The files of a certificate and its key."""

    chain: Path
    key: Path

    @property
    def words(self) -> tuple[str, str]:
        """Return them as two words of a command."""
        return str(self.chain), str(self.key)


def make_pair(folder: Path) -> Pair:
    """Make a certificate for localhost, with a key on P-256.

    Raises:
        BenchError: there is no openssl.
    """
    pair = Pair(folder / "chain.pem", folder / "key.pem")
    try:
        subprocess.run([*MAKE, "-keyout", pair.key, "-out", pair.chain], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise BenchError(f"openssl made no certificate ({error}): install openssl") from None
    return pair


def with_tls(programs: Programs, folder: Path) -> Programs:
    """Return the C programs, of which the load and the echo server speak TLS; compiled into a folder in `folder`.

    Raises:
        BenchError: there is no compiler, or it refuses a source: OpenSSL's headers may be missing.
    """
    own = folder / "tls"  # the programs without it have the same names
    own.mkdir()
    try:
        load, echo_epoll = (compile_c(BENCH / source, own, *COMPILED_WITH) for source in ("load.c", "echo_epoll.c"))
    except BenchError as error:
        raise BenchError(f"{error}; the headers of OpenSSL are needed: install libssl-dev") from None
    return replace(programs, load=load, echo_epoll=echo_epoll)
