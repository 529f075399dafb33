"""A daemon whose handlers speak TLS with servers: OpenSSL's own, and what an operator is told where they cannot."""

from pathlib import Path

from core.support.authority import authority
from core.support.sockets import receive

from e2e.support.clients import connect
from e2e.support.handlers import IMPORTS, beside
from e2e.support.starting import Start
from e2e.support.tls_peers import openssl_server

ASKS = (
    IMPORTS
    + """
@dataclass
class Options:
    server: str
    ca: gaiod.PemFile


class Asks(gaiod.Handler):
    Options = Options

    def on_start(self):
        self.address = gaiod.parse_address(self.options.server).target
        self.tls = gaiod.ClientTls("localhost", ca=self.options.ca.text)
        gaiod.prepare_tls(self.tls)

    def on_open(self, conn):
        conn.data = self.connect(self.address, data=conn, tls=self.tls)

    def on_connect(self, conn, result):
        client = conn.data
        if result.error is not None:
            client.write(f"{result.error.reason}: {result.error.strerror}\\n".encode())
            conn.close()
        else:
            conn.write(b"abc\\n")
            conn.read()

    def on_write(self, conn, result):
        if conn.data is None:
            conn.close()

    def on_read(self, conn, result):
        conn.data.write(result.buffer)
        conn.close()
"""
)


def test_handler_asks_a_server_that_speaks_tls(daemon: Start, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text(authority().text)
    (tmp_path / "mine.py").write_text(ASKS)
    with openssl_server(tmp_path / "server", authority().sign()) as server:
        running = daemon(beside(f"    with: {{server: '{server.address}', ca: {ca}}}\n"))
        with connect(running.address("mine")) as sock:
            assert receive(sock, 4) == b"cba\n"
        ca.unlink()  # workers have its text, those that start later, too
        assert running.gaiod("workers", "restart").returncode == 0
        with connect(running.address("mine")) as sock:
            assert receive(sock, 4) == b"cba\n"


def test_handler_learns_why_a_server_is_not_believed(daemon: Start, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(authority().text)
    (tmp_path / "mine.py").write_text(ASKS)
    with openssl_server(tmp_path / "server", authority().sign("DNS:elsewhere")) as server:
        running = daemon(beside(f"    with: {{server: '{server.address}', ca: {tmp_path}/ca.pem}}\n"))
        with connect(running.address("mine")) as sock:
            said = b"wrong_name: TLS failed: its certificate is for elsewhere, not localhost\n"
            assert receive(sock, len(said)) == said
