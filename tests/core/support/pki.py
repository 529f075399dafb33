"""Authorities for tests, by `openssl`: they issue, revoke, and say so in lists and in OCSP responses."""

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from weakref import finalize

from gaiod.core.tls import Certificate

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")

END = "-----END CERTIFICATE-----\n"

CONFIG = """\
[ca]
default_ca = own
[own]
database = {folder}/index
certificate = {folder}/ca.pem
private_key = {folder}/ca.key
default_md = sha256
"""


def run(*arguments: object) -> str:
    """Have `openssl` do something."""
    done = subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, text=True, timeout=60)
    return done.stdout


@cache
def has_dates() -> bool:
    """Tell whether `openssl x509` takes dates: since 3.4; those that do take no negative days."""
    done = subprocess.run(["openssl", "x509", "-help"], check=True, capture_output=True, text=True, timeout=60)
    return "-not_after" in done.stdout + done.stderr


def lasting(days: int) -> tuple[str, ...]:
    """Return what makes a certificate end so many days from now; negative: it has ended."""
    if days >= 0 or not has_dates():
        return ("-days", str(days))
    return ("-not_before", "20200101000000Z", "-not_after", "20200102000000Z")


class Authority:
    """Whoever issues certificates.

    Attributes:
        certificate: its own, PEM.
        chain: it, and those that lead from it to a root.
    """

    def __init__(self, name: str = "Gate CA", issuer: "Authority | None" = None, days: int = 30) -> None:
        self.folder = Path(tempfile.mkdtemp())
        finalize(self, shutil.rmtree, self.folder)
        self._serial = 100
        (self.folder / "index").touch()
        (self.folder / "ca.cnf").write_text(CONFIG.format(folder=self.folder))
        if issuer is None:
            run(
                "req", "-x509", *CURVE, "-days", days, "-subj", f"/O=Example/CN={name}", "-keyout",
                self.folder / "ca.key", "-out", self.folder / "ca.pem",
            )  # fmt: skip
            self.chain = self.certificate
        else:
            made = issuer.issue(name, days=days, usage="CA:true", subject=f"/O=Example/CN={name}")
            (self.folder / "ca.pem").write_text(made.chain.partition(END)[0] + END)
            (self.folder / "ca.key").write_text(made.key)
            self.chain = self.certificate + issuer.chain

    @property
    def certificate(self) -> str:
        """Its own certificate, PEM."""
        return (self.folder / "ca.pem").read_text()

    def issue(
        self, name: str, *, days: int = 30, usage: str = "CA:false", subject: str = "", names: str = ""
    ) -> Certificate:
        """Return a certificate with this authority's own behind it, and its key."""
        self._serial += 1
        key, asked, made = self.folder / "key", self.folder / "asked", self.folder / f"{self._serial}.pem"
        run("req", "-new", *CURVE, "-subj", subject or f"/O=Example/CN={name}", "-utf8", "-keyout", key, "-out", asked)
        extensions = self.folder / "extensions"
        extensions.write_text(f"basicConstraints = {usage}\n" + (f"subjectAltName = {names}\n" if names else ""))
        run(
            "x509", "-req", "-in", asked, "-CA", self.folder / "ca.pem", "-CAkey", self.folder / "ca.key",
            *lasting(days), "-set_serial", self._serial, "-extfile", extensions, "-out", made,
        )  # fmt: skip
        return Certificate(made.read_text() + self.chain_behind(), key.read_text())

    def chain_behind(self) -> str:
        """Return what a certificate of this authority needs behind it: nothing, where a root has issued it."""
        return "" if self.chain == self.certificate else self.certificate

    def revoke(self, certificate: Certificate) -> None:
        """Take a certificate back: the next list has it."""
        (self.folder / "revoked.pem").write_text(certificate.chain)
        serial = run("x509", "-in", self.folder / "revoked.pem", "-noout", "-serial").strip().partition("=")[2]
        with (self.folder / "index").open("a") as file:
            file.write(f"R\t491231000000Z\t250101000000Z\t{serial}\tunknown\t/CN=revoked\n")

    def revocations(self, *until: str) -> str:
        """Return its list, PEM; `until`: how `openssl ca` is told when it begins and ends."""
        out = self.folder / "list.pem"
        run("ca", "-gencrl", "-config", self.folder / "ca.cnf", *(until or ("-crldays", "30")), "-out", out)
        return out.read_text()

    def ocsp(self, certificate: Certificate, *, minutes: int = 60, good: bool = True, digest: str = "sha1") -> bytes:
        """Return an OCSP response for a certificate, DER."""
        leaf, out, index = self.folder / "leaf.pem", self.folder / "response.der", self.folder / "known"
        leaf.write_text(certificate.chain)
        serial = run("x509", "-in", leaf, "-noout", "-serial").strip().partition("=")[2]
        state = "V\t491231000000Z\t" if good else "R\t491231000000Z\t250101000000Z"
        index.write_text(f"{state}\t{serial}\tunknown\t/CN=known\n")
        run(
            "ocsp", "-index", index, "-CA", self.folder / "ca.pem", "-rsigner", self.folder / "ca.pem", "-rkey",
            self.folder / "ca.key", "-issuer", self.folder / "ca.pem", f"-{digest}", "-cert", leaf, "-nmin", minutes,
            "-respout", out, "-noverify",
        )  # fmt: skip
        return out.read_bytes()


@cache
def authority(name: str = "Gate CA") -> Authority:
    """Return one for tests that change nothing in it."""
    return Authority(name)
