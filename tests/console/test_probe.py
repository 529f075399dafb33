"""What is told of a metrics endpoint, whatever it answers."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from core.support.waiting import LIMIT_S, MOMENT_S
from e2e.support.programs import free_port

from gaiod.console import probe as module
from gaiod.console.probe import probe


@contextmanager
def _answering(answer: bytes) -> Iterator[str]:
    """Answer one request, and give the URL of who does. What is not said, nobody says: the client waits."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LIMIT_S)

        def run() -> None:
            with listener.accept()[0] as client:
                client.recv(4096)
                client.sendall(answer)
                if not answer:
                    client.recv(1)  # until it has given up

        thread = threading.Thread(target=run)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/readyz"
        thread.join(LIMIT_S)
        assert not thread.is_alive()


def _response(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (_response("200 OK", "ready\n"), 0, "says 200: ready"),
        (_response("503 Service Unavailable", "not ready\n"), 75, "says 503: not ready"),
        (_response("404 Not Found", "there is\n/metrics\n"), 69, "says 404: there is /metrics"),
        (b"what?\r\n\r\n", 69, "what answers there speaks no HTTP"),
    ],
    ids=["ready", "not-ready", "elsewhere", "no-http"],
)
def test_answer_decides(answer: bytes, status: int, text: str) -> None:
    with _answering(answer) as url:
        told, line = probe(url)
    assert (told, line.removeprefix(url).lstrip(": ")) == (status, text)


def test_nobody_there_is_69() -> None:
    url = f"http://127.0.0.1:{free_port()}/readyz"
    assert probe(url) == (69, f"{url}: Connection refused")


def test_who_does_not_answer_in_time_is_75(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", MOMENT_S)
    with _answering(b"") as url:
        assert probe(url) == (75, f"{url} does not answer within {MOMENT_S:g} s")


@pytest.mark.parametrize(
    "url", ["127.0.0.1:9464", "https://localhost/", "http://", "http://a:b/", "http://[::1/", "/x"]
)
def test_what_is_no_url_is_wrong_usage(url: str) -> None:
    assert probe(url) == (64, f"{url}: write a URL such as http://127.0.0.1:9464/readyz")
