"""The status page of a running daemon: as a program asks for it, and in a browser."""

import re
import struct
import subprocess
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from core.support.waiting import LIMIT_S

from e2e.support.clients import connect, exchange, is_ended, request
from e2e.support.daemons import ECHO
from e2e.support.programs import free_port
from e2e.support.starting import Start
from e2e.support.tools import tool

WIDTH, HEIGHT = 900, 600

HANDLER = """
from gaiod import Conn, Handler, OpResult


class Shout(Handler):
    def on_open(self, conn: Conn) -> None:
        conn.read()

    def on_read(self, conn: Conn, result: OpResult) -> None:
        conn.write(bytes(result.buffer).upper())
"""


def test_page_answers_who_asks(daemon: Start) -> None:
    running = daemon(f"workers: 2\n{ECHO}")
    got = request(running.metrics, "/")
    assert (got.status, got.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert got.body.decode().count('<td class="text good">serving</td>') == 3
    head = request(running.metrics, "/", method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-security-policy"] == got.headers["content-security-policy"]
    assert int(head.headers["content-length"]) > 1000
    elsewhere = request(running.metrics, "/status")
    assert (elsewhere.status, elsewhere.body) == (404, b"there is a status page at /, /metrics, /livez and /readyz\n")


def test_page_tells_nothing_that_metrics_do_not(daemon: Start, tmp_path: Path) -> None:
    """A path, a client and an error are there to be told; of addresses there are those that labels have."""
    folder = tmp_path / "private"
    folder.mkdir()
    (folder / "shout.py").write_text(HANDLER)
    config = f"""\
metrics: {{listen: "127.0.0.1:0"}}
listeners:
  shout: {{bind: "unix:{folder}/shout.sock", handler: {folder}/shout.py}}
  db: {{bind: "127.0.0.1:0", handler: proxy, with: {{servers: ["127.0.0.1:{free_port()}"]}}}}
"""
    running = daemon(config)
    with connect(f"unix:{folder}/shout.sock") as sock, connect(running.address("db")) as refused:
        assert exchange(sock, b"ping") == b"PING"
        assert is_ended(refused), "its server is down"
        (tmp_path / "gaiod.yaml").write_text("listeners: {}\n")
        assert running.gaiod("reload").returncode != 0
        text = request(running.metrics, "/").body.decode()
        metrics = request(running.metrics, "/metrics").body.decode()
    assert "last reload: failed" in text
    assert '<td class="text">shout</td>' in text, "the handler, by its label"
    assert "private" not in text
    assert "gaiod.yaml" not in text
    addresses = re.findall(r"\d+\.\d+\.\d+\.\d+:\d+", text)
    assert addresses, "the server's"
    assert [address for address in addresses if f'server="{address}"' not in metrics] == []


def _browse(folder: Path, url: str, *options: str) -> tuple[str, str]:
    """Look at a page with Chromium; return its document as the script left it, and what the console said."""
    done = subprocess.run(
        [
            tool("chromium", "chromium"),
            "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
            f"--user-data-dir={folder / 'chromium'}", f"--window-size={WIDTH},{HEIGHT}",
            "--enable-logging=stderr", "--v=0", *options, url,
        ],
        capture_output=True,
        text=True,
        timeout=6 * LIMIT_S,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def _pixels(png: bytes) -> tuple[int, int, bytes]:
    """Return the width and the height of a picture, and its bytes as they were before compression."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    data, place = b"", 8
    while place < len(png):
        size = int.from_bytes(png[place : place + 4])
        if png[place + 4 : place + 8] == b"IDAT":
            data += png[place + 8 : place + 8 + size]
        place += size + 12
    return width, height, zlib.decompress(data)


@pytest.mark.thorough
def test_browser_shows_the_page_and_the_script_renews_it(daemon: Start, tmp_path: Path) -> None:
    """The page of a moment ago, behind a prefix and a query as of a proxy: in the end it has the numbers of now.

    In between, the proxy answers by itself, which costs nothing of what is shown.
    """
    running = daemon(f"workers: 2\n{ECHO}")
    old = request(running.metrics, "/")
    asked: list[str] = []

    class Prefixed(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/gaiod/?key=1":
                self.send_error(404)  # an icon that a browser asks for
                return
            asked.append(self.path)
            if len(asked) == 2:
                self.send_error(502, "<main>no daemon</main>")
                return
            now = old if len(asked) == 1 else request(running.metrics, "/")
            self.send_response(now.status)
            for name in ("content-type", "content-security-policy", "x-content-type-options"):
                if name in now.headers:
                    self.send_header(name, now.headers[name])
            self.end_headers()
            self.wfile.write(now.body)

        def log_message(self, *parts: object) -> None:
            pass

    picture = tmp_path / "page.png"
    with ThreadingHTTPServer(("127.0.0.1", 0), Prefixed) as front, connect(running.address()) as sock:
        assert exchange(sock, b"ping") == b"ping"
        thread = threading.Thread(target=front.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{front.server_port}/gaiod/?key=1"
        # Virtual time: the browser's clock runs ahead while it waits for nothing, so its timers cost no time here.
        dom, said = _browse(tmp_path, url, "--virtual-time-budget=7000", "--dump-dom", f"--screenshot={picture}")
        front.shutdown()
        thread.join()
    assert len(asked) >= 3
    # Of itself the browser says that loading failed; what else it says is an error, or what the policy forbids.
    assert [line for line in said.splitlines() if "502" not in line] == []
    assert re.search(r'<td class="text">echo</td>.*?<td>1/\d+</td>', dom), dom
    assert '<p id="silent" role="alert" hidden="">' in dom
    width, height, pixels = _pixels(picture.read_bytes())
    assert (width, height) == (WIDTH, HEIGHT)
    assert len(set(pixels)) > 20, "nothing is to be seen in it"


@pytest.mark.thorough
def test_browser_says_so_when_the_daemon_is_gone(daemon: Start, tmp_path: Path) -> None:
    running = daemon()
    page = request(running.metrics, "/")
    file = tmp_path / "page.html"
    file.write_bytes(page.body)  # of a file nothing can be fetched, as of a daemon that is gone
    dom, _ = _browse(tmp_path, file.as_uri(), "--virtual-time-budget=3000", "--dump-dom")
    assert '<p id="silent" role="alert">' in dom
    assert "<title>no answer - gaiod</title>" in dom


@pytest.mark.thorough
def test_browser_renews_a_page_whose_address_has_a_password(daemon: Start, tmp_path: Path) -> None:
    """As in a bookmark of a page behind a proxy that asks who it is: nothing relative can be fetched there."""
    running = daemon()
    running.scrape()
    before = running.scrape().value("gaiod_scrapes_total", code="200")
    url = f"http://operator:secret@{running.metrics}/"
    dom, said = _browse(tmp_path, url, "--virtual-time-budget=3000", "--dump-dom")
    assert said == ""
    assert '<p id="silent" role="alert" hidden="">' in dom
    looks = running.scrape().value("gaiod_scrapes_total", code="200") - before - 1  # that scrape itself
    assert looks >= 2, "the page, and what renewed it"
