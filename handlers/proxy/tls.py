"""TLS with the servers: what the options say becomes what `connect` takes."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from gaiod import Address, Certificate, Check, ClientTls, Conn, PemFile, prepare_tls, shown

ALPN_MAX_BYTES = 255


def _believable(file: PemFile) -> None:
    try:
        prepare_tls(ClientTls("localhost", ca=file.text))
    except ValueError as error:
        raise ValueError(f"{shown(file.path)}: {error}") from error


def _pair(values: dict[str, Any]) -> None:
    """Refuse a certificate that is none, or a key that is not its own. `values` are a mapping as the file has it."""
    chain, key = PemFile(**values["chain"]), PemFile(**values["key"])
    try:
        prepare_tls(ClientTls(verify=False, certificate=Certificate(chain.text, key.text)))
    except ValueError as error:
        raise ValueError(f"{shown(chain.path)} and {shown(key.path)}: {error}") from error


def _name(text: str) -> None:
    try:
        ClientTls(text)
    except ValueError as error:
        raise ValueError(str(error) if text else "is empty; write the name of the server, or leave it out") from error


def _protocols(texts: list[str]) -> None:
    for text in texts:
        if not (text.isascii() and text.isprintable() and 0 < len(text) <= ALPN_MAX_BYTES):
            raise ValueError(f"has {shown(text)}, which names no protocol; write names such as h2 or postgresql")


@dataclass(frozen=True)
class CertificateOptions:
    """`certificate:`, what is shown to a server that asks for one."""

    chain: PemFile
    key: PemFile


@dataclass(frozen=True)
class TlsOptions:
    """`tls:` of a server."""

    ca: Literal["system"] | Annotated[PemFile, Check(_believable)] = "system"
    name: Literal[False] | Annotated[str, Check(_name)] = False
    server_name: Literal["fixed", "client"] = "fixed"
    certificate: Literal[False] | Annotated[CertificateOptions, Check(_pair)] = False
    alpn: Annotated[list[str], Check(_protocols)] = field(default_factory=list)
    verify: bool = True
    truncation: Literal["error", "accept"] = "error"


class ServerTls:
    """What a server is asked, and shown."""

    def __init__(self, options: TlsOptions, address: Address) -> None:
        """Make it ready for use.

        Raises:
            ValueError: nothing says which name the server's certificate has to be for; or OpenSSL takes something not.
        """
        name = options.name or address.host.rstrip(".")
        if options.verify and not name:
            raise ValueError(f"{address} has tls without name, so its certificate cannot be verified; add name")
        shows = options.certificate
        self._of_client = options.server_name == "client"
        self._fixed = ClientTls(
            name,
            ca=None if options.ca == "system" else options.ca.text,
            certificate=Certificate(shows.chain.text, shows.key.text) if shows else None,
            verify=options.verify,
            alpn=tuple(options.alpn),
            accepts_truncation=options.truncation == "accept",
        )
        prepare_tls(self._fixed)

    def ask_for(self, client: Conn | None) -> ClientTls:
        """Return what `connect` takes for a client; None: for a connection of the proxy's own."""
        name = client.tls.server_name if self._of_client and client is not None and client.tls is not None else None
        if name is None or name == self._fixed.name:
            return self._fixed
        try:
            return replace(self._fixed, name=name)
        except ValueError:  # its client says what no server is called
            return self._fixed
