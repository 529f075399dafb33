"""A daemon whose handlers speak TLS with servers: OpenSSL's own, and what an operator is told where they cannot."""

import re
import socket
import ssl
from pathlib import Path

import pytest
import redis
from core.support.authority import authority
from core.support.sockets import receive
from core.support.waiting import LIMIT_S

from e2e.support.clients import connect, is_ended
from e2e.support.handlers import IMPORTS, beside
from e2e.support.programs import free_port, serving
from e2e.support.starting import Start
from e2e.support.tls_peers import openssl_server, written
from e2e.support.tools import tool
from e2e.support.upstreams import config, until
from e2e.support.waiting import wait_until
from gaiod.core.contexts import load
from gaiod.core.engine import shares_tickets

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
            how = "for elsewhere, not" if shares_tickets() else "not for"  # Python's ssl does not show it
            said = f"wrong_name: TLS failed: its certificate is {how} localhost\n".encode()
            assert receive(sock, len(said)) == said


def trusting(ca: str, name: str | None) -> ssl.SSLContext:
    """Return the settings of a client that believes an authority; without a name it asks for none."""
    context = ssl.create_default_context(cadata=ca)
    context.check_hostname = name is not None
    return context


# -- the proxy -------------------------------------------------------------------------------------------------------

NGINX = """\
daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    server {{
        listen {address} ssl proxy_protocol;
        ssl_certificate own.pem;
        ssl_certificate_key own.key;
        return 200 "$proxy_protocol_addr:$proxy_protocol_port $ssl_server_name\\n";
    }}
}}
"""


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    """The file of the tests' authority."""
    path = tmp_path / "ca.pem"
    path.write_text(authority().text)
    return path


def test_proxy_speaks_tls_with_openssl(daemon: Start, tmp_path: Path, ca: Path) -> None:
    with openssl_server(tmp_path / "server", authority().sign(), "-alpn", "lines") as server:
        tls = f"{{ca: {ca}, name: localhost, alpn: [lines]}}"
        running = daemon(config(f"servers: [{{address: '{server.address}', tls: {tls}}}]"))
        for _ in range(3):
            with connect(running.address("db")) as sock:
                sock.sendall(b"abc\n")
                assert receive(sock, 4) == b"cba\n"
                sock.shutdown(socket.SHUT_WR)
                assert is_ended(sock)
        until(running, 3, "connections_closed_total", listener="db", reason="peer_eof")
        scrape = until(running, 2, "upstream_tls_handshakes_total", upstream="db", result="resumed")
        assert scrape.total("gaiod_upstream_tls_handshakes_total", result="full") == 1
        with connect(running.address("db")) as sock:
            sock.sendall(b"abc\n")
            assert receive(sock, 4) == b"cba\n"
            (open_one,) = running.ask("connections")["connections"]
            told = running.gaiod("explain", open_one["id"]).stdout
            assert re.search(r"TLS 1\.3, \w+, server name localhost, protocol lines, server certificate CN=lo", told), (
                told
            )


def test_operator_is_told_why_a_server_is_not_believed(daemon: Start, tmp_path: Path, ca: Path) -> None:
    ended = authority().sign("DNS:localhost", days=-1)
    with openssl_server(tmp_path / "server", ended) as server:
        tls = f"{{ca: {ca}, name: localhost}}"
        more = "retries: 0, passive: {failures: 2}"
        running = daemon(config(f"servers: [{{address: '{server.address}', tls: {tls}}}], {more}"))
        for _ in range(2):
            with connect(running.address("db")) as sock:
                assert is_ended(sock)
        until(running, 2, "upstream_tls_failures_total", upstream="db", reason="certificate_expired")
        until(running, 2, "upstream_connect_failures_total", reason="tls")
        until(running, 2, "upstream_unavailable_total", cause="connect_tls")
        until(running, 0, "upstream_up", upstream="db")
        wait_until(lambda: "is ejected for 10 s" in running.log(), "the ejection in the log")
        assert re.search(r"it could not be connected to; TLS failed: its certificate has ended", running.log())


def test_check_names_the_file_that_is_of_no_use(daemon: Start, tmp_path: Path, ca: Path) -> None:
    own, other = authority().sign(), authority().sign("DNS:other")
    written(tmp_path, "own", own)
    (tmp_path / "own.key").write_text(other.key)
    certificate = f"{{chain: {tmp_path}/own.pem, key: {tmp_path}/own.key}}"
    for tls, message in (
        (
            "{ca: /nowhere/ca.pem}",
            "tls.ca: /nowhere/ca.pem: No such file or directory; write the absolute path of a PEM",
        ),
        (
            f"{{certificate: {certificate}}}",
            ": the key is not that of the chain's first certificate; write its own",
        ),
    ):
        running = daemon(config(f"servers: [{{address: 'db:1', tls: {tls}}}]"), ready=False)
        assert running.wait() == 78
        assert message in running.log()


def test_header_and_client_name_reach_nginx(daemon: Start, tmp_path: Path, ca: Path) -> None:
    tool("nginx", "nginx")
    address = f"127.0.0.1:{free_port()}"
    folder = tmp_path / "nginx"
    folder.mkdir()
    written(folder, "own", authority().sign("DNS:a.example.org,DNS:b.example.org"))
    (folder / "nginx.conf").write_text(NGINX.format(address=address))
    written(tmp_path, "front", authority("Of gaiod").sign("DNS:b.example.org"))
    certificates = f"[{{chain: {tmp_path}/front.pem, key: {tmp_path}/front.key}}]"
    tls = f"{{ca: {ca}, name: a.example.org, server_name: client}}"
    server = f"servers: [{{address: '{address}', tls: {tls}}}], send_proxy: v2"
    with serving(folder, ["nginx", "-p", str(folder), "-c", "nginx.conf"], address):
        running = daemon(config(server, more=f"tls: {{certificates: {certificates}}},"))
        for name in ("b.example.org", None):
            with connect(running.address("db")) as sock:
                own = ":".join(map(str, sock.getsockname()))
                secured = trusting(authority("Of gaiod").text, name).wrap_socket(sock, server_hostname=name)
                secured.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = b""
                while part := secured.recv(4096):
                    answer += part
                secured.close()
            assert answer.endswith(f"{own} {name or 'a.example.org'}\n".encode()), answer


HAPROXY = """\
defaults
    mode http
    timeout connect 10s
    timeout client 10s
    timeout server 10s
frontend front
    bind {address} accept-proxy
    http-request return status 200 content-type text/plain lf-string "%[src]:%[src_port] %[fc_pp_authority]\\n"
"""


def test_haproxy_takes_what_is_said_of_a_client_that_shows_a_certificate(daemon: Start, tmp_path: Path) -> None:
    tool("haproxy", "haproxy")
    address = f"127.0.0.1:{free_port()}"
    folder = tmp_path / "haproxy"
    folder.mkdir()
    (folder / "haproxy.cfg").write_text(HAPROXY.format(address=address))
    (tmp_path / "clients.pem").write_text(authority("Of clients").text)
    written(tmp_path, "front", authority().sign())
    certificates = f"[{{chain: {tmp_path}/front.pem, key: {tmp_path}/front.key}}]"
    more = f"tls: {{certificates: {certificates}, clients: {{ca: {tmp_path}/clients.pem}}}},"
    with serving(folder, ["haproxy", "-f", "haproxy.cfg"], address):
        running = daemon(config(f"servers: ['{address}'], send_proxy: v2", more=more))
        with connect(running.address("db")) as sock:
            own = ":".join(map(str, sock.getsockname()))
            context = trusting(authority().text, "localhost")
            load(context, authority("Of clients").sign("DNS:gate", usage="clientAuth"))
            secured = context.wrap_socket(sock, server_hostname="localhost")
            secured.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while part := secured.recv(4096):
                answer += part
            secured.close()
        assert answer.endswith(f"{own} localhost\n".encode()), answer


def test_redis_that_asks_for_certificates_is_reached_in_plain(daemon: Start, tmp_path: Path, ca: Path) -> None:
    tool("redis-server", "redis-server")
    port = free_port()
    folder = tmp_path / "redis"
    folder.mkdir()
    written(folder, "own", authority().sign())
    (folder / "clients.pem").write_text(authority("Of clients").text)
    written(tmp_path, "gate", authority("Of clients").sign("DNS:gate", usage="clientAuth"))
    command = ["redis-server", "--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--save", ""]
    command += ["--tls-cert-file", "own.pem", "--tls-key-file", "own.key", "--tls-ca-cert-file", "clients.pem"]
    certificate = f"{{chain: {tmp_path}/gate.pem, key: {tmp_path}/gate.key}}"
    tls = f"{{ca: {ca}, name: localhost, certificate: {certificate}}}"
    check = 'check: {interval: 100ms, send: "PING\\r\\n", expect: "PONG"}'
    with serving(folder, command, f"127.0.0.1:{port}"):
        running = daemon(config(f"servers: [{{address: '127.0.0.1:{port}', tls: {tls}}}], {check}"))
        host, _, front = running.address("db").rpartition(":")
        with redis.Redis(host, int(front), socket_timeout=LIMIT_S) as client:
            client.set("key", "x" * 1_000_000)
            assert client.get("key") == b"x" * 1_000_000
        wait_until(lambda: running.scrape().total("gaiod_upstream_health_checks_total", result="passed") > 2, "checks")
        assert running.scrape().total("gaiod_upstream_health_checks_total", result="failed") == 0


# -- TLS that passes through -----------------------------------------------------------------------------------------


def test_clients_reach_the_server_that_they_name_and_terminate_tls_there(daemon: Start, tmp_path: Path) -> None:
    own = {name: authority().sign(f"DNS:{name}.example.org") for name in ("a", "b")}
    with openssl_server(tmp_path / "a", own["a"]) as a, openssl_server(tmp_path / "b", own["b"]) as b:
        servers = f"[{{address: '{a.address}', pool: a}}, {{address: '{b.address}', pool: b}}]"
        route = "{sni: {a.example.org: a, '*.example.org': b}, timeout: 1s}"
        running = daemon(config(f"servers: {servers}, route: {route}, check: false"))
        for name in ("a", "b"):
            with connect(running.address("db")) as sock:
                secured = trusting(authority().text, name).wrap_socket(sock, server_hostname=f"{name}.example.org")
                secured.sendall(b"abc\n")
                assert receive(secured, 4) == b"cba\n"
                assert running.gaiod("reload").returncode == 0  # it goes on with the next worker: there is no key here
                secured.sendall(b"def\n")
                assert receive(secured, 4) == b"fed\n"
                secured.close()
        with connect(running.address("db")) as sock, pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
            trusting(authority().text, "c").wrap_socket(sock, server_hostname="example.net")
        with connect(running.address("db")) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert is_ended(sock)
        with connect(running.address("db")) as sock:
            sock.sendall(b"\x16\x03\x01")
            assert is_ended(sock)
        scrape = until(running, 5, "connections_closed_total", listener="db")
        results = ("sni", "unknown_name", "http", "timeout")
        told = [scrape.total("gaiod_upstream_routed_total", upstream="db", result=each) for each in results]
        assert told == [2, 1, 1, 1]
        running.wait_for("it asks for example.net, which route does not name")
