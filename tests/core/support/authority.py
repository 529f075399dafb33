"""An authority for tests: it signs certificates for whoever a test wants, also such that nobody should believe."""

import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from core.support.pki import lasting
from gaiod.core.tls import Certificate

EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


@dataclass(frozen=True)
class Authority:
    """One that signs itself; `text` is its certificate."""

    text: str
    key: str

    def sign(self, names: str = "DNS:localhost", days: int = 30, usage: str = "serverAuth") -> Certificate:
        """Return a certificate for some names, as subjectAltName has them, that ends in some days (-1: it has)."""
        return _sign(self, names, days, usage)


@cache
def authority(name: str = "Test Authority") -> Authority:
    """Return the authority of that name: the same one each time."""
    with tempfile.TemporaryDirectory() as folder:
        chain, key = Path(folder) / "chain.pem", Path(folder) / "key.pem"
        _openssl("req", "-x509", *EC, "-days", "30", "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(chain))
        return Authority(chain.read_text(), key.read_text())


@cache
def _sign(by: Authority, names: str, days: int, usage: str) -> Certificate:
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        (folder / "ca.pem").write_text(by.text)
        (folder / "ca.key").write_text(by.key)
        (folder / "more").write_text(f"subjectAltName={names}\nextendedKeyUsage={usage}\nbasicConstraints=CA:false\n")
        subject = names.partition(":")[2].partition(",")[0]
        _openssl("req", *EC, "-subj", f"/CN={subject}", "-keyout", f"{text}/key", "-out", f"{text}/request")
        _openssl(
            "x509", "-req", "-in", f"{text}/request", "-CA", f"{text}/ca.pem", "-CAkey", f"{text}/ca.key",
            "-CAcreateserial", *lasting(days), "-extfile", f"{text}/more", "-out", f"{text}/chain",
        )  # fmt: skip
        return Certificate((folder / "chain").read_text(), (folder / "key").read_text())


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)
