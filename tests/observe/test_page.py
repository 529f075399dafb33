"""The status page shows what /metrics may show, and what somebody should look at before the rest."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from supervisor.support.answers import AT, NOT_PAUSED, STATUS_RESULT

from gaiod.console.columns import shown
from gaiod.observe import page as module
from gaiod.observe.page import HEADERS, answer, problems

WORKER, ABSENT = STATUS_RESULT["workers"]
LISTENER, DRAINED = STATUS_RESULT["listeners"]
SERVER = {
    "listener": "db",
    "server": "192.0.2.1:5432",
    "up": True,
    "admin": "ready",
    "weight": None,
    "connections": 3,
    "made": 17,
    "failures": 0,
}
FEEDER = {
    "pid": 820,
    "state": "running",
    "heartbeat_age_s": 0.1,
    "memory_bytes": 2**24,
    "cpu_seconds": 2.0,
    "restarts": 0,
}
SOURCE = {
    "listener": "ticks",
    "source": "every",
    "up": True,
    "published": 1,
    "refused": 0,
    "reconnects": 0,
    "gaps": 0,
}
FINE: dict[str, Any] = {
    **STATUS_RESULT,
    "workers": [WORKER, {**WORKER, "worker": 1}],
    "listeners": [{**LISTENER, "connections_max": 10_000}],
    "servers": [SERVER],
    "feeder": FEEDER,
    "sources": [SOURCE],
}


def page(status: dict[str, Any]) -> str:
    return module.page(status, AT)


class Tables(HTMLParser):
    """The tables of a page: a list of rows for each heading, a row being its cells by the title of their column."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[dict[str, str]]] = {}
        self.items: list[str] = []
        self._titles: list[str] = []
        self._cells: list[str] = []
        self._heading = ""
        self._text = ""
        self._is_row = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self._text = ""
        if tag == "th":
            self._is_row = ("scope", "row") in attrs
        elif tag == "table":
            self._titles, self.tables[self._heading] = [], []
        elif tag == "tr":
            self._cells = []

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "h2":
            self._heading = self._text
        elif tag == "th" and not self._is_row:
            self._titles.append(self._text)
        elif tag in ("td", "th"):
            self._cells.append(self._text)
        elif tag == "li":
            self.items.append(self._text)
        elif tag == "tr" and self._cells:
            self.tables[self._heading].append(dict(zip(self._titles, self._cells, strict=True)))


def test_page_has_a_table_of_everything_that_runs() -> None:
    text = page(FINE)
    assert "version 0.2.0, compiled engine; up 3d 4h; generation 3; last reload: worked, 4m 10s ago" in text
    tables = Tables(text).tables
    assert list(tables) == ["Workers", "Listeners", "Servers", "Feeder", "Sources"]
    first, second = tables["Workers"]
    assert (first["worker"], second["worker"]) == ("0", "1")
    assert (first["busy"], first["loop lag"], first["memory"]) == ("42%", "<5ms", "52.0 MiB")
    (listener,) = tables["Listeners"]
    assert (listener["open / limit"], listener["received"], listener["accept queue"]) == (
        "1234/20000",
        "12.3 MiB/s",
        "0/1024",
    )
    assert tables["Servers"][0]["state"] == "up"
    assert tables["Sources"][0]["published"] == "1"


def test_page_of_a_daemon_that_has_just_begun_has_no_empty_table() -> None:
    begun = {**FINE, "workers": [], "listeners": [], "servers": [], "feeder": None, "sources": [], "last_reload": None}
    assert Tables(page(begun)).tables == {}


def test_numbers_that_are_not_known_yet_are_dashes() -> None:
    tables = Tables(page({**FINE, "workers": [ABSENT], "listeners": [DRAINED]})).tables
    assert {tables["Workers"][0][title] for title in ("busy", "loop lag", "heartbeat", "memory")} == {"-"}
    assert {tables["Listeners"][0][title] for title in ("accepted", "sent", "accept queue", "paused clients")} == {"-"}


def test_paused_connections_are_told_by_side() -> None:
    pressure = {**NOT_PAUSED, "upstream": {"paused_connections": 2, "buffered_bytes": 65536}}
    (row,) = Tables(page({**FINE, "listeners": [{**LISTENER, "backpressure": pressure}]})).tables["Listeners"]
    assert (row["paused clients"], row["paused servers"]) == ("-", "2: 64.0 KiB")


def test_those_who_wait_for_a_server_are_not_those_who_wait_to_be_accepted() -> None:
    row = {**LISTENER, "queue": 2, "queue_limit": 1024, "waiting_for_server": 7}
    text = page({**FINE, "listeners": [row]})
    (shown,) = Tables(text).tables["Listeners"]
    assert (shown["accept queue"], shown["waiting for a server"]) == ("2/1024", "7")
    assert '<td class="notable">7</td>' in text


def test_nothing_needs_to_be_looked_at_when_all_is_well() -> None:
    assert problems(FINE) == []
    assert "Nothing needs to be looked at." in page(FINE)
    assert "<title>serving - gaiod</title>" in page(FINE)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"ready": False, "state": "stopping"}, "Not ready: the daemon is stopping; new clients should go elsewhere."),
        (
            {"last_reload": {"ok": False, "at": AT, "error": "/etc/x"}},
            "The last reload failed, and changed nothing: gaiod status says why.",
        ),
        ({"workers": [ABSENT]}, "Worker 1 does not run: it died, and is started again in a moment."),
        (
            {"workers": [{**WORKER, "heartbeat_age_s": 3.0}]},
            "The loop of worker 0 has not completed a pass for 3.0s: a hook of a handler blocks it.",
        ),
        (
            {"workers": [{**WORKER, "busy": 0.97}]},
            "Worker 0 is busy 97% of the time: more workers, or less work in its handlers.",
        ),
        (
            {"workers": [{**WORKER, "loop_lag_s": 11.0}]},
            "Worker 0 makes clients wait for 11s: a hook of a handler takes long.",
        ),
        (
            {"listeners": [{**LISTENER, "connections_max": 685}]},
            "echo has 1234 of at most 1370 connections (connections_max).",
        ),
        (
            {"listeners": [{**LISTENER, "connections_max": 10_000, "state": "draining"}]},
            "echo takes no new connections: somebody drained it, and the next reload opens it again.",
        ),
        (
            {"listeners": [{**LISTENER, "connections_max": 10_000, "queue": 1000}]},
            "echo: 1000 clients wait to be accepted, of at most 1024.",
        ),
        ({"servers": [{**SERVER, "up": False}]}, "db: server 192.0.2.1:5432 is down, and gets no connections."),
        (
            {"servers": [{**SERVER, "up": False, "admin": "maint"}]},
            "db: server 192.0.2.1:5432 gets no new connections: an operator wants maint.",
        ),
        ({"feeder": {**FEEDER, "state": "waiting"}}, "The feeder does not run: no message comes from any source."),
        ({"sources": [{**SOURCE, "up": False}]}, "ticks: source every is down, and nothing comes from it."),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_what_is_wrong_is_said_first_and_where_to_look(changed: dict[str, Any], sentence: str) -> None:
    text = page({**FINE, **changed})
    assert Tables(text).items == [sentence]
    assert "<title>1 to look at - gaiod</title>" in text


def test_limit_is_that_of_the_workers_that_serve() -> None:
    """One that does not run takes no connections."""
    listener = {**LISTENER, "connections_max": 1300}
    half = {**FINE, "workers": [WORKER, ABSENT], "listeners": [listener]}
    assert "echo has 1234 of at most 1300 connections (connections_max)." in problems(half)
    assert Tables(page(half)).tables["Listeners"][0]["open / limit"] == "1234/1300"
    assert problems({**FINE, "listeners": [listener]}) == []


def test_stop_is_told_once_and_not_again_for_each_listener() -> None:
    stopping = {**FINE, "ready": False, "state": "stopping", "listeners": [{**LISTENER, "state": "draining"}]}
    assert problems(stopping) == ["Not ready: the daemon is stopping; new clients should go elsewhere."]


def test_tables_can_be_heard_and_moved_by_keyboard() -> None:
    """Every row and column has a header, and each box that may be too wide has a name and takes the focus."""
    text = page(FINE)
    assert '<html lang="en">' in text
    assert '<th scope="row" class="text">echo</th>' in text
    assert text.count("<table>") == text.count('role="region" tabindex="0" aria-labelledby=') == 5
    names = re.findall(r'aria-labelledby="(\w+)"', text)
    assert names == re.findall(r'<h2 id="(\w+)">', text)


def test_page_has_nothing_that_metrics_may_not_show() -> None:
    told = {
        **FINE,
        "pid": 48151,
        "config": "/srv/secret/gaiod.yaml",
        "last_reload": {"ok": False, "at": AT, "error": "/srv/secret/gaiod.yaml:1:1: no"},
        "workers": [{**WORKER, "pid": 48152, "instance": 48153}],
        "listeners": [{**LISTENER, "bind": "unix:/srv/secret/echo.sock"}],
        "feeder": {**FEEDER, "pid": 48154},
    }
    text = page(told)
    assert not re.search(r"4815\d|secret|unix:", text)
    assert "last reload: failed, 0.0s ago" in text


def test_names_cannot_be_markup_or_control_characters() -> None:
    name = "</td><script>alert(1)</script>\x1b[2J&\"'"
    row = {**LISTENER, "listener": name, "handler": name}
    text = page({**FINE, "listeners": [row], "servers": [{**SERVER, "server": name, "up": False}]})
    assert text.count("<script>") == 1
    assert "\x1b" not in text
    assert "&lt;/td&gt;&lt;script&gt;" in text
    assert Tables(text).tables["Servers"][0]["server"] == shown(name)


def test_browser_is_told_to_run_and_load_nothing_else() -> None:
    made = answer(FINE)
    policy = made.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert (made.headers["cache-control"], made.headers["x-content-type-options"]) == ("no-store", "nosniff")
    assert made.status == 200
    assert b"<h1>gaiod: " in made.body
    assert HEADERS["content-type"] == "text/html; charset=utf-8"
    assert not re.search(r"(src|href)=[\"'](?!metrics|readyz)", page(FINE))
    assert not re.search(r"\son\w+=|\sstyle=", page(FINE)), "what the policy forbids"
    assert "//" not in module.STYLE, "an address of something to load"
