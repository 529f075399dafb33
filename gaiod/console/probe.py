"""Ask a daemon's metrics endpoint whether it is ready: what `curl -f` does, where there is no curl."""

import http.client
import os
from http import HTTPStatus
from urllib.parse import urlsplit

TIMEOUT_S = 5.0
"""The endpoint itself gives a client no longer."""

TEXT_MAX_CHARACTERS = 100


def probe(url: str) -> tuple[int, str]:
    """Return an exit status, 0 if the answer is 200, and in a line what was answered or went wrong."""
    try:
        parts = urlsplit(url)
        port = parts.port or http.client.HTTP_PORT
    except ValueError:
        return _wrong(url)
    if parts.scheme != "http" or not parts.hostname:
        return _wrong(url)
    client = http.client.HTTPConnection(parts.hostname, port, timeout=TIMEOUT_S)
    try:
        client.request("GET", parts.path or "/")
        response = client.getresponse()
        body = response.read(4 * TEXT_MAX_CHARACTERS).decode(errors="replace")
    except http.client.InvalidURL:
        return _wrong(url)
    except TimeoutError:
        return os.EX_TEMPFAIL, f"{url} does not answer within {TIMEOUT_S:g} s"
    except (http.client.HTTPException, OSError) as error:
        why = getattr(error, "strerror", None) or "what answers there speaks no HTTP"
        return os.EX_UNAVAILABLE, f"{url}: {why}"
    finally:
        client.close()
    text = f"{url} says {response.status}: {' '.join(body.split())[:TEXT_MAX_CHARACTERS]}"
    match response.status:
        case HTTPStatus.OK:
            return 0, text
        case HTTPStatus.SERVICE_UNAVAILABLE:
            return os.EX_TEMPFAIL, text
        case _:
            return os.EX_UNAVAILABLE, text


def _wrong(url: str) -> tuple[int, str]:
    return os.EX_USAGE, f"{url}: write a URL such as http://127.0.0.1:9464/readyz"
