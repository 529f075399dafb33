"""The control socket's language: what can be asked of a running daemon, by whom, and in which words.

    {"verb": "connections", "limit": 10}                        a request: a JSON object, one line
    {"ok": true, "result": {"total": 2, "connections": [...]}}  its answer: the same
    {"ok": false, "error": "unknown verb 'statu'; did you mean status?", "status": 64}

`status` is a number of sysexits(3), for the exit of the command that asked.
"""

import difflib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gaiod.core.errors import GaiodError

LINE_MAX_BYTES = 64 * 1024
"""Of a request, its newline not counted: some hundred times what the longest needs."""

QUICK_S = 10.0
"""How long a client waits for what the supervisor has at hand, or has to ask its workers for."""

SLOW_S = 3600.0
"""... and for what reads files, or waits for connections to end, in one worker after the other: 64 workers that drain
for 30 s each take half an hour. Somebody at a terminal has Ctrl-C."""

MESSAGE_MAX_BYTES = 48 * 1024
"""Of a message to publish. With what JSON adds it has to fit into a request, and what is longer is no command."""

ARGUMENTS_MAX_BYTES = 4096
"""What a request to publish has beside the message."""

OVER_HTTP = "publish it over HTTP, by a source that takes it"

CONNECTION_ID = r"[0-9]{1,10}-[0-9]{1,19}"
QUOTED_MAX = 60
"""Characters of the client's text that are repeated to it. Beyond, difflib would only burn time."""


class ControlError(GaiodError):
    """A request that is not served: raised by the daemon that refuses it, and again by the client that asked.

    Attributes:
        status: what the command that asked exits with, a number of sysexits(3).
    """

    def __init__(self, text: str, status: int = os.EX_USAGE) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a verb: text, or a whole number if it has a `maximum`."""

    what: str
    is_required: bool = False
    default: str | int | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ""
    maximum: int | None = None

    def check(self, name: str, value: object) -> None:
        """Raise ControlError, unless `value` can be used."""
        if value is None and not self.is_required and self.default is None:
            return
        if self.maximum is not None:
            if type(value) is not int or not 1 <= value <= self.maximum:
                raise ControlError(f"{name}: write a whole number from 1 to {self.maximum}")
        elif type(value) is not str:
            raise ControlError(f"{name}: write {self.what}, as a JSON string")
        elif self.choices and value not in self.choices:
            raise ControlError(f"{name}: {_quoted(value)} is none of {', '.join(self.choices)}")
        elif self.pattern and not re.fullmatch(self.pattern, value):
            raise ControlError(f"{name}: {_quoted(value)} is not {self.what}")


@dataclass(frozen=True, slots=True)
class Verb:
    """One thing that can be asked for. Only root and the daemon's own user may ask for what `is_admin`.

    Attributes:
        is_logged: the log has a line for each time; else metrics count it.
    """

    what: str
    is_admin: bool
    timeout_s: float = QUICK_S
    is_logged: bool = True
    arguments: Mapping[str, Argument] = field(default_factory=dict)


CONNECTION = Argument(
    "a connection's id, as `gaiod connections` shows it (3-1831)", is_required=True, pattern=CONNECTION_ID
)

VERBS = {
    "status": Verb("the daemon, its workers and its listeners", is_admin=False),
    "connections": Verb(
        "the open connections",
        is_admin=False,
        arguments={
            "listener": Argument("the name of a listener (null: all)"),
            "sort": Argument(
                "what comes first", default="age", choices=("age", "bytes", "stalled", "buffered", "traffic")
            ),
            "limit": Argument("how many at most", default=100, maximum=10_000),
        },
    ),
    "explain": Verb(
        "where a connection stands, or why it closed", is_admin=False, arguments={"connection": CONNECTION}
    ),
    "kill": Verb("close a connection at once", is_admin=True, arguments={"connection": CONNECTION}),
    "certificates": Verb("the certificates of listeners", is_admin=False),
    "renew": Verb("look now whether certificates were renewed", is_admin=True, timeout_s=SLOW_S),
    "restart": Verb("replace every worker, one after the other", is_admin=True, timeout_s=SLOW_S),
    "rebalance": Verb(
        "even out established connections over the workers",
        is_admin=True,
        timeout_s=SLOW_S,
        arguments={"listener": Argument("the name of a listener (null: all)")},
    ),
    "reload": Verb("read the configuration again, and serve it", is_admin=True, timeout_s=SLOW_S),
    "upgrade": Verb("replace the whole daemon by what is installed now", is_admin=True, timeout_s=SLOW_S),
    "drain": Verb(
        "accept no more on a listener",
        is_admin=True,
        arguments={"listener": Argument("the name of a listener", is_required=True)},
    ),
    "server": Verb(
        "say what is wanted of a server of a listener",
        is_admin=True,
        arguments={
            "listener": Argument("the name of a listener", is_required=True),
            "server": Argument("the address of a server, as it is configured", is_required=True),
            "mode": Argument("what is wanted (null: as before)", choices=("drain", "maint", "ready")),
            "weight": Argument(
                "its weight, 0 to 256, or `configured` (null: as before)", pattern=r"[0-9]{1,3}|configured"
            ),
        },
    ),
    "bans": Verb("who is banned", is_admin=False),
    "ban": Verb(
        "close the connections of an address or a network, and accept none any more",
        is_admin=True,
        arguments={
            "network": Argument("an address or a network", is_required=True),
            "for": Argument("for how long, such as 10m (null: until it is unbanned)", pattern=r"[1-9][0-9]{0,6}[smhd]"),
        },
    ),
    "unban": Verb(
        "accept a network again",
        is_admin=True,
        arguments={"network": Argument("an address or a network", is_required=True)},
    ),
    "publish": Verb(
        "publish a message to subscribers",
        is_admin=True,
        is_logged=False,
        arguments={
            "listener": Argument("the name of a listener (null: all that take messages)"),
            "topic": Argument("the name of a topic", is_required=True),
            "message": Argument("the message", is_required=True),
        },
    ),
}
"""Everything the socket takes: requests are checked against this, and documented from it."""


def parse_request(line: bytes, *, may_administer: bool) -> dict[str, Any]:
    """Return a request, its defaults filled in.

    Raises:
        ControlError: it is none, or none that this client may make.
    """
    try:
        request = json.loads(line.decode())
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict) or not isinstance(request.get("verb"), str):
        raise ControlError('a request is a line with a JSON object that has a verb: {"verb": "status"}')
    name = request["verb"]
    verb = VERBS.get(name)
    if verb is None:
        raise ControlError(_unknown("verb", name, VERBS))
    if verb.is_admin and not may_administer:
        raise ControlError(f"{name}: not permitted; only root and the daemon's own user may", os.EX_NOPERM)
    for key in sorted(request.keys() - {"verb", *verb.arguments}):
        raise ControlError(f"{name}: {_unknown('argument', key, verb.arguments)}")
    for key, argument in verb.arguments.items():
        if key in request:
            argument.check(f"{name}: {key}", request[key])
        elif argument.is_required:
            raise ControlError(f"{name}: {key} is missing; write {argument.what}")
        else:
            request[key] = argument.default
    return request


def check_message(topic: str, message: str) -> None:
    """Look whether a message can be a command's.

    Raises:
        ControlError: it is too long, or no text.
    """
    size = len(message.encode(errors="surrogatepass"))
    if size > MESSAGE_MAX_BYTES or len(json_of(message)) > LINE_MAX_BYTES - ARGUMENTS_MAX_BYTES:
        text = f"the message has {size} bytes; a command takes {MESSAGE_MAX_BYTES} at most, less of what needs escapes"
        raise ControlError(f"{text}; {OVER_HTTP}", os.EX_DATAERR)
    for what, text in (("topic", topic), ("message", message)):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ControlError(f"the {what} is no UTF-8; {OVER_HTTP}", os.EX_DATAERR) from error


def json_of(value: object) -> bytes:
    """Return JSON as short as it gets: text is written as it is, and what no text can hold is escaped."""
    return json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace")


def succeeded(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer to a request that was served."""
    return {"ok": True, "result": result}


def refused(error: str, status: int) -> dict[str, Any]:
    """Return the answer to one that was not, for whatever reason."""
    return {"ok": False, "error": error, "status": status}


def _unknown(what: str, name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, known, n=1) if len(name) <= QUOTED_MAX else []
    others = f"there is {', '.join(known)}" if known else "it takes none"
    return f"unknown {what} {_quoted(name)}; {f'did you mean {near[0]}?' if near else others}"


def _quoted(text: str) -> str:
    return ascii(text if len(text) <= QUOTED_MAX else text[:QUOTED_MAX] + "...")
