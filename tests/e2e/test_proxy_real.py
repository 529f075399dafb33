"""Real clients and real servers with the proxy between them: what both counted is what the metrics say."""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from core.support.sockets import pattern
from core.support.waiting import LIMIT_S

from e2e.support.clients import Samples, connect
from e2e.support.daemons import Daemon
from e2e.support.programs import free_port, serving
from e2e.support.starting import Start
from e2e.support.tools import tool
from e2e.support.upstreams import config, until
from e2e.support.waiting import wait_until

FILE_BYTES = 50 << 20
UPLOAD_BYTES = 20 << 20

NGINX = """\
daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events {{}}
http {{
    log_format bytes '$request_length $bytes_sent';
    access_log access.log bytes;
    client_body_temp_path body;
    client_max_body_size 1g;
    server {{ listen unix:{socket}; root files; dav_methods PUT; }}
}}
"""
"""One process, which stays root where it is: tmp_path is for nobody else."""


def run(*command: str, given: bytes = b"") -> bytes:
    """Run a client; return what it says."""
    done = subprocess.run(command, input=given, capture_output=True, timeout=3 * LIMIT_S, check=False)
    assert done.returncode == 0, done
    return done.stdout


def counted(scrape: Samples) -> tuple[float, float, float, float]:
    """Return the bytes received of clients, sent to servers, received of servers, sent to clients."""
    both = [
        scrape.total(f"gaiod_{verb}_bytes_total", listener="db", side=side)
        for verb, side in (("received", "downstream"), ("sent", "upstream"), ("received", "upstream"))
    ]
    return both[0], both[1], both[2], scrape.total("gaiod_sent_bytes_total", listener="db", side="downstream")


def when_closed(running: Daemon, connections: int) -> Samples:
    """Return what is said when so many clients have come and gone; each had a connection to the server of its own."""
    scrape = until(running, connections, "connections_closed_total", listener="db")
    assert scrape.total("gaiod_connections_accepted_total", listener="db") == connections
    assert scrape.total("gaiod_upstream_connections_total", upstream="db") == connections
    assert scrape.total("gaiod_upstream_connections_active", upstream="db") == 0
    assert scrape.total("gaiod_buffered_bytes", listener="db") == 0
    return scrape


# -- redis -----------------------------------------------------------------------------------------------


@dataclass
class Redis:
    """A redis-server, asked by a connection that does not go through the proxy."""

    REQUEST = b"INFO stats\r\n"

    address: str

    def info(self) -> tuple[dict[str, int], int]:
        """Return its statistics, which count this request and not yet the answer; and the bytes of that."""
        with connect(self.address) as sock, sock.makefile("rb") as stream:
            sock.sendall(self.REQUEST)
            head = stream.readline()
            body = stream.read(int(head[1:]) + 2)
        pairs = [line.split(":") for line in body.decode().splitlines() if line.startswith("total_")]
        return {name: int(value) for name, value in pairs if value.isdecimal()}, len(head) + len(body)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """A redis-server that keeps nothing."""
    port = free_port()
    program = tool("redis-server", "redis-server")
    command = [program, "--port", f"{port}", "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    with serving(tmp_path, command, f"127.0.0.1:{port}"):
        yield Redis(f"127.0.0.1:{port}")


def test_redis_and_its_clients_notice_nothing(daemon: Start, redis: Redis) -> None:
    """One value larger than any buffer, then 20 connections with one request after the other, then pipelines."""
    cli, benchmark = tool("redis-cli", "redis-tools"), tool("redis-benchmark", "redis-tools")
    running = daemon(config(f"servers: ['{redis.address}']"))
    at = ["-h", "127.0.0.1", "-p", running.address("db").rpartition(":")[2]]
    value = pattern(4 << 20)
    before, answer_bytes = redis.info()
    assert run(cli, *at, "ping") == b"PONG\n"
    assert run(cli, *at, "-x", "set", "key", given=value) == b"OK\n"
    assert run(cli, *at, "get", "key") == value + b"\n"
    for more in (["-n", "10000"], ["-n", "20000", "-P", "50", "-d", "1000"]):
        table = run(benchmark, *at, "-c", "20", "-t", "set,get,incr", "--csv", *more).decode().splitlines()
        assert [line.split(",")[0] for line in table[1:]] == ['"SET"', '"GET"', '"INCR"']
    assert run(cli, *at, "get", "counter:__rand_int__") == b"30000\n", "an INCR was lost, or came twice"
    after, _ = redis.info()
    grown = {name: after[name] - before[name] for name in after}
    scrape = when_closed(running, grown["total_connections_received"] - 1)  # that of the second info()
    asked = grown["total_net_input_bytes"] - len(Redis.REQUEST)
    answered = grown["total_net_output_bytes"] - answer_bytes
    assert counted(scrape) == (asked, asked, answered, answered)
    assert asked > answered > 2 * len(value)


# -- HTTP ------------------------------------------------------------------------------------------------


@dataclass
class Nginx:
    """An nginx: the files that it serves, and what it wrote down of the requests."""

    folder: Path

    @property
    def files(self) -> Path:
        """Where the files are."""
        return self.folder / "files"

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"unix:{self.folder / 'nginx.sock'}"

    def requests(self) -> list[tuple[int, int]]:
        """Return the bytes of each request and its answer."""
        lines = (self.folder / "access.log").read_text().splitlines()
        return [(int(asked), int(answered)) for asked, answered in map(str.split, lines)]


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    """An nginx at a unix socket."""
    program = tool("nginx", "nginx-light")
    made = Nginx(tmp_path / "nginx")
    made.files.mkdir(parents=True)
    (made.folder / "nginx.conf").write_text(NGINX.format(socket=made.folder / "nginx.sock"))
    with serving(made.folder, [program, "-p", f"{made.folder}/", "-c", "nginx.conf", "-e", "stderr"], made.address):
        yield made


@dataclass
class Curl:
    """What curl says of its transfers: one entry for each."""

    asked: list[int]
    answered: list[int]
    connected: list[int]


def curl(*arguments: str) -> Curl:
    """Run curl, which has to succeed."""
    program = tool("curl", "curl")
    said = run(program, "--silent", "--show-error", "--fail", "--header", "Expect:", *arguments, "-w", "%{json}\n")
    rows = [json.loads(line) for line in said.decode().splitlines()]
    return Curl(
        [row["size_request"] + row["size_upload"] for row in rows],
        [row["size_header"] + row["size_download"] for row in rows],
        [row["num_connects"] for row in rows],
    )


def digest(path: Path) -> str:
    """Return a file's hash."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_files_come_and_go_whole_and_connections_are_kept(daemon: Start, nginx: Nginx, tmp_path: Path) -> None:
    """A large file, another upon the same connection, and one that is uploaded upon its own."""
    running = daemon(config(f"servers: ['{nginx.address}']"))
    url, got = f"http://{running.address('db')}", tmp_path / "got"
    (nginx.files / "large").write_bytes(pattern(FILE_BYTES))
    (nginx.files / "small").write_bytes(b"hello\n")
    (tmp_path / "mine").write_bytes(pattern(UPLOAD_BYTES, seed=1))

    down = curl(f"{url}/large", "-o", str(got), f"{url}/small", "-o", f"{got}.small")
    up = curl("--upload-file", str(tmp_path / "mine"), f"{url}/mine")

    assert digest(got) == digest(nginx.files / "large")
    assert Path(f"{got}.small").read_bytes() == b"hello\n"
    assert digest(nginx.files / "mine") == digest(tmp_path / "mine")
    assert down.connected == [1, 0], "the second request has the first one's connection"
    assert up.connected == [1]
    asked, answered = down.asked + up.asked, down.answered + up.answered
    wait_until(lambda: len(nginx.requests()) == len(asked), "nginx's notes, which it makes after it has answered")
    assert nginx.requests() == list(zip(asked, answered, strict=True))
    assert sum(asked) > UPLOAD_BYTES
    assert sum(answered) > FILE_BYTES
    assert counted(when_closed(running, 2)) == (sum(asked), sum(asked), sum(answered), sum(answered))
