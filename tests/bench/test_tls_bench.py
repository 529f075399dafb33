"""The benchmark of TLS: every server and every proxy in it speaks TLS, and echoes what the load sends."""

import socket
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from harness.proxies import known_tls_proxies, missing_proxies
from harness.runs import Bench, Row, run_idle, run_load
from harness.servers import Programs, known_servers, missing_servers
from harness.tls import Pair, make_pair, with_tls
from needs import needs_module

pytest_plugins = ("bench_fixtures",)
SERVERS = ("c", "gaiod", "uvloop", "aiofastnet", "asyncio", "gaiod-interpreted")
PROXIES = ("gaiod", "haproxy", "nginx", "gaiod-interpreted")
HEADERS = Path("/usr/include/openssl/ssl.h")

pytestmark = pytest.mark.skipif(not HEADERS.exists(), reason="no headers of OpenSSL: install libssl-dev")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def secure(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return with_tls(programs, tmp_path_factory.mktemp("secure"))


@pytest.mark.parametrize("name", SERVERS)
def test_server_echoes_over_tls(bench: Bench, secure: Programs, pair: Pair, name: str) -> None:
    if name in (missing := missing_servers()):
        pytest.skip(f"{name}: {missing[name]}")
    server = known_servers(secure, pair.words)[name]
    if name in ("gaiod", "gaiod-interpreted", "uvloop", "aiofastnet"):
        needs_module(name.partition("-")[0], server.environment)
    own = replace(bench, programs=secure)
    for row, mode in ((Row(3, 1024), "echo"), (Row(1, 4 << 20), "echo"), (Row(2, 64), "connect")):
        assert run_load(own, server, row, mode).messages >= row.connections  # type: ignore[arg-type]
    with server.serving(bench.server_cpu) as (_, port), socket.create_connection(("127.0.0.1", port)) as sock:
        context = ssl.create_default_context(cafile=str(pair.chain))
        with context.wrap_socket(sock, server_hostname="localhost") as client:
            assert client.version() == "TLSv1.3"


@pytest.mark.parametrize("name", PROXIES)
def test_proxy_speaks_tls_with_clients(
    bench: Bench, programs: Programs, secure: Programs, pair: Pair, tmp_path: Path, name: str
) -> None:
    if name in (missing := missing_proxies(of_this_machine=True)):
        pytest.skip(f"{name}: {missing[name]}")
    proxy = known_tls_proxies(programs, tmp_path, bench.load_cpu, pair)[name]
    if name.startswith("gaiod"):
        needs_module("gaiod", proxy.environment)
    assert run_load(replace(bench, programs=secure), proxy, Row(3, 1024)).messages >= 3


def test_idle_connections_are_those_that_have_spoken_tls(bench: Bench, secure: Programs, pair: Pair) -> None:
    server = known_servers(secure, pair.words)["c"]
    # More than fit in what the handshakes of the first 200 have given back to the allocator.
    assert run_idle(replace(bench, programs=secure), server, 500) > 4096
