"""The status page of the metrics endpoint: what `gaiod top` shows of the daemon, for a browser.

It shows what /metrics may show, for whoever may see that sees this: no address of a client, no process, no path, no
text of an error. It is made anew for each who asks, for it takes less than half of what /metrics takes: writing it
0.4 ms for two workers and three listeners, 2.4 ms for 8 and 50 with as many servers.
"""

import base64
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import inf
from typing import Any

from gaiod.console.tables import (
    UNKNOWN,
    duration,
    lag,
    number,
    of,
    rate,
    rate_of,
    share,
    shown,
    size,
    size_rate,
    up_or_down,
    with_limits,
)
from gaiod.observe.http import Answer

Row = Mapping[str, Any]

BUSY_MUCH, LAG_MUCH_S, HEARTBEAT_LATE_S, FULL = 0.9, 1.0, 2.0, 0.9
"""From here on something is said to be wrong."""

STYLE = """
:root { color-scheme: light dark; --page: #fff; --text: #1c1f22; --soft: #5c6268; --rule: #ddd; --good: #1b6e34;
  --notable: #8a5a00; --bad: #b3261e; --alarm: #fdecea }
@media (prefers-color-scheme: dark) { :root { --page: #16191c; --text: #e4e7ea; --soft: #a0a7ad; --rule: #3a3f44;
  --good: #7fd18b; --notable: #ffc266; --bad: #ff8a80; --alarm: #3b1f1d } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; font: 15px/1.45 system-ui, sans-serif; background: var(--page);
  color: var(--text) }
h1 { font-size: 1.35rem; margin: 0 }
h2 { font-size: 1rem; margin: 1.6rem 0 .3rem }
p { margin: .2rem 0; color: var(--soft) }
ul { margin: 1rem 0; padding: .6rem 1rem .6rem 2rem; border-left: 4px solid var(--bad); background: var(--alarm) }
footer { margin-top: 1.4rem }
a { color: inherit }
div { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; white-space: nowrap }
tr { background: var(--page) }
tr:has(.bad) { background: var(--alarm) }
th, td { padding: .3rem .8rem .3rem 0; text-align: right; border-bottom: 1px solid var(--rule) }
th:first-child, td:first-child { padding-left: .3rem }
th:last-child, td:last-child { padding-right: .3rem }
th { font-weight: 600 }
thead th { font-size: .85rem; color: var(--soft) }
th:first-child { position: sticky; left: 0; background: inherit }
.text { text-align: left }
.good { color: var(--good) }
.notable { color: var(--notable); font-weight: 600 }
.bad { color: var(--bad); font-weight: 600 }
#silent { padding: .5rem 1rem; background: var(--bad); color: var(--page) }
"""

SCRIPT = """
"use strict";
let seen = new Date();
const boxes = () => [...document.querySelectorAll("main div")];
const show = (page) => {
  const places = new Map(boxes().map((box) => [box.id, box.scrollLeft]));
  const focused = document.activeElement.id;
  document.querySelector("main").replaceWith(page.querySelector("main"));
  document.title = page.title;
  boxes().forEach((box) => { box.scrollLeft = places.get(box.id) || 0; });
  if (focused) document.getElementById(focused)?.focus({preventScroll: true});
};
const look = async () => {
  const silent = document.getElementById("silent");
  try {
    const here = location.origin + location.pathname + location.search;
    const answer = await fetch(here, {cache: "no-store", signal: AbortSignal.timeout(4000)});
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (!answer.ok || !page.querySelector("main")) throw new Error("this is somebody else's answer");
    show(page);
    seen = new Date();
    silent.hidden = true;
  } catch (error) {
    document.title = "no answer - gaiod";
    if (silent.hidden) silent.querySelector("time").textContent = seen.toLocaleTimeString();
    silent.hidden = false;
  }
  setTimeout(look, document.hidden ? 10000 : 2000);
};
setTimeout(look, 2000);
"""
"""A look that is replaced keeps how far its tables were moved to the side, and the focus.

It fetches its own address without `user:password@`, which "" would have too: browsers refuse to fetch that, and
send the password they were given by themselves.
"""


FOOTER = (
    "<footer><p>Rates, busy and lag are of the last ten seconds. Paused: who does not take what is held for them. "
    'More: <a href="metrics">metrics</a>, <a href="readyz">readyz</a>; on the machine, <code>gaiod top</code>.</p>'
    "</footer>\n"
)


def _source(text: str) -> str:
    """Return how a Content-Security-Policy allows exactly this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


HEADERS = {
    "content-type": "text/html; charset=utf-8",
    "cache-control": "no-store",
    "content-security-policy": f"default-src 'none'; style-src {_source(STYLE)}; script-src {_source(SCRIPT)}; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def answer(status: Row) -> Answer:
    """Return the page as what the endpoint answers. `status` is what `Subject.status()` returns."""
    return Answer(200, page(status, time.time()), HEADERS)


def page(status: Row, now: float) -> str:
    """Return the page. Every text in it is escaped. `now` is a Unix time."""
    wrong = problems(status)
    title = f"{len(wrong)} to look at - gaiod" if wrong else f"{status['state']} - gaiod"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<noscript><meta http-equiv="refresh" content="5"></noscript>\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        '<p id="silent" role="alert" hidden>The daemon does not answer. What is below is of <time></time>.</p>\n'
        f"<main>\n{_main(status, now, wrong)}</main>\n{FOOTER}<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def problems(status: Row) -> list[str]:
    """Return what somebody should look at, a sentence each, and where to look."""
    workers, listeners = status["workers"], with_limits(status)
    reload, feeder = status["last_reload"], status["feeder"]
    return [
        *([] if status["ready"] else [f"Not ready: the daemon is {status['state']}; new clients should go elsewhere."]),
        *(
            ["The last reload failed, and changed nothing: gaiod status says why."]
            if reload and not reload["ok"]
            else []
        ),
        *(text for row in workers for text in _of_worker(row)),
        *(text for row in listeners for text in _of_listener(row)),
        *(
            f"{row['listener']} takes no new connections: somebody drained it, and the next reload opens it again."
            for row in listeners
            if row["state"] != "serving" and status["state"] != "stopping"
        ),
        *(
            f"{row['listener']}: server {row['server']} is down, and gets no connections."
            for row in status["servers"]
            if not row["up"]
        ),
        *(
            ["The feeder does not run: no message comes from any source."]
            if feeder and feeder["state"] != "running"
            else []
        ),
        *(
            f"{row['listener']}: source {row['source']} is down, and nothing comes from it."
            for row in status["sources"]
            if not row["up"]
        ),
    ]


def _of_worker(row: Row) -> list[str]:
    who = f"Worker {row['worker']}"
    said = []
    if row["state"] == "waiting":
        said.append(f"{who} does not run: it died, and is started again in a moment.")
    if (row["heartbeat_age_s"] or 0) >= HEARTBEAT_LATE_S:
        said.append(f"{who} has not come round for {duration(row['heartbeat_age_s'])}: a hook of a handler blocks it.")
    if (row["busy"] or 0) >= BUSY_MUCH:
        said.append(f"{who} is busy {share(row['busy'])} of the time: more workers, or less work in its handlers.")
    if (row["loop_lag_s"] or 0) >= LAG_MUCH_S:
        said.append(f"{who} makes clients wait for {lag(row['loop_lag_s'])[1:]}: a hook of a handler takes long.")
    return said


def _of_listener(row: Row) -> list[str]:
    limit, said = row["limit"], []
    if row["state"] == "serving" and limit and row["connections"] >= FULL * limit:
        said.append(f"{row['listener']} has {row['connections']} of at most {limit} connections (connections_max).")
    if row["queue_limit"] and row["queue"] >= FULL * row["queue_limit"]:
        said.append(f"{row['listener']}: {row['queue']} clients wait to be accepted, of at most {row['queue_limit']}.")
    return said


# -- its parts ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Field:
    """A column.

    Attributes:
        title: what is above it.
        show: what it shows of a row.
        is_text: it is not a number.
        is_name: it says what the row is about.
        mark: the class of what it shows; "": none.
    """

    title: str
    show: Callable[[Row], str]
    is_text: bool = False
    is_name: bool = False
    mark: Callable[[Row], str] = lambda row: ""


def _main(status: Row, now: float, wrong: Sequence[str]) -> str:
    feeder = [] if status["feeder"] is None else [status["feeder"]]
    items = "".join(f"<li>{escape(shown(text))}</li>" for text in wrong)
    return (
        f'<h1>gaiod: <span class="{_mark_of_state(status)}">{escape(status["state"])}</span></h1>\n'
        f"<p>version {escape(status['version'])}, {escape(status['engine'])} engine; "
        f"up {duration(status['uptime_s'])}; generation {status['generation']}; "
        f"last reload: {_outcome(status['last_reload'], now)}</p>\n"
        + (f"<ul>{items}</ul>\n" if wrong else '<p class="good">Nothing needs to be looked at.</p>\n')
        + _table("Workers", WORKERS, status["workers"])
        + _table("Listeners", LISTENERS, with_limits(status))
        + _table("Servers", SERVERS, status["servers"])
        + _table("Feeder", FEEDER, feeder)
        + _table("Sources", SOURCES, status["sources"])
    )


def _outcome(reload: Row | None, now: float) -> str:
    if reload is None:
        return "none"
    return f"{'worked' if reload['ok'] else 'failed'}, {duration(now - reload['at'])} ago"


def _table(title: str, fields: Sequence[Field], rows: Sequence[Row]) -> str:
    """Return a table with its heading, in a box that the keyboard can move to the side; nothing if it has no rows."""
    if not rows:
        return ""
    name = title.lower()
    head = "".join(f'<th scope="col"{_class("text" * field.is_text)}>{escape(field.title)}</th>' for field in fields)
    lines = "".join(f"<tr>{''.join(_cell(field, row) for field in fields)}</tr>\n" for row in rows)
    return (
        f'<h2 id="{name}">{title}</h2>\n<div id="{name}-box" role="region" tabindex="0" aria-labelledby="{name}">'
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}</tbody></table></div>\n"
    )


def _cell(field: Field, row: Row) -> str:
    start, end = ('th scope="row"', "th") if field.is_name else ("td", "td")
    return f"<{start}{_class('text' * field.is_text, field.mark(row))}>{escape(field.show(row))}</{end}>"


def _class(*names: str) -> str:
    kept = " ".join(filter(None, names))
    return f' class="{kept}"' if kept else ""


def _paused(side: str) -> Field:
    def show(row: Row) -> str:
        paused, held = row["backpressure"][side]["paused_connections"], row["backpressure"][side]["buffered_bytes"]
        return f"{paused} ({size(held)})" if paused or held else UNKNOWN

    who = {"downstream": "clients", "upstream": "servers"}[side]
    return Field(f"paused {who}", show, mark=lambda row: "notable" * (show(row) != UNKNOWN))


def _mark_of_state(row: Row) -> str:
    return "good" if row["state"] in ("serving", "running") else "notable"


def _mark_of_up(row: Row) -> str:
    return "good" if row["up"] else "bad"


def _bad_from(key: str, much: float) -> Callable[[Row], str]:
    return lambda row: "bad" * ((row[key] or 0) >= much)


STATE = Field("state", of("state", shown), is_text=True, mark=_mark_of_state)
UP = Field("state", up_or_down, is_text=True, mark=_mark_of_up)
LISTENER = Field("listener", of("listener", shown), is_text=True, is_name=True)
MEMORY, CPU = Field("memory", of("memory_bytes", size)), Field("CPU time", of("cpu_seconds", duration))
RESTARTS = Field("died or hung", of("restarts", number), mark=lambda row: "notable" * bool(row["restarts"]))
HEARTBEAT = Field("heartbeat", of("heartbeat_age_s", duration), mark=_bad_from("heartbeat_age_s", HEARTBEAT_LATE_S))

WORKERS = (
    Field("worker", of("worker", number), is_text=True, is_name=True),
    STATE,
    Field("connections", of("connections", number)),
    Field("busy", of("busy", share), mark=_bad_from("busy", BUSY_MUCH)),
    Field("loop lag", of("loop_lag_s", lag), mark=_bad_from("loop_lag_s", LAG_MUCH_S)),
    HEARTBEAT,
    MEMORY,
    CPU,
    RESTARTS,
)
LISTENERS = (
    LISTENER,
    Field("handler", of("handler", shown), is_text=True),
    STATE,
    Field(
        "open / limit",
        lambda row: f"{row['connections']} / {row['limit']}",
        mark=lambda row: "bad" * (row["connections"] >= FULL * (row["limit"] or inf)),
    ),
    Field("accepted", rate_of("accepted", rate)),
    Field("received", rate_of("received_bytes", size_rate)),
    Field("sent", rate_of("sent_bytes", size_rate)),
    Field("to be accepted", lambda row: UNKNOWN if row["queue"] is None else f"{row['queue']} / {row['queue_limit']}"),
    Field(
        "waiting for a server",
        of("waiting_for_server", number),
        mark=lambda row: "notable" * bool(row["waiting_for_server"]),
    ),
    _paused("downstream"),
    _paused("upstream"),
)
SERVERS = (
    LISTENER,
    Field("server", of("server", shown), is_text=True, is_name=True),
    UP,
    Field("open", of("connections", number)),
    Field("connections made", of("made", number)),
    Field("failed to connect", of("failures", number), mark=lambda row: "notable" * bool(row["failures"])),
)
FEEDER = (STATE, HEARTBEAT, MEMORY, CPU, RESTARTS)
SOURCES = (
    LISTENER,
    Field("source", of("source", shown), is_text=True, is_name=True),
    UP,
    Field("published", of("published", number)),
    Field("refused", of("refused", number)),
    Field("reconnects", of("reconnects", number)),
    Field("gaps", of("gaps", number)),
)
