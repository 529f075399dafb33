"""What a request has to look like, and what is said about one that does not."""

import json
import os
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gaiod.control.protocol import (
    LINE_MAX_BYTES,
    MESSAGE_MAX_BYTES,
    QUICK_S,
    SLOW_S,
    VERBS,
    ControlError,
    check_message,
    json_of,
    parse_request,
)

EXAMPLES: dict[str, dict[str, Any]] = {
    "explain": {"connection": "3-1831"},
    "kill": {"connection": "3-1831"},
    "drain": {"listener": "echo"},
    "server": {"listener": "db", "server": "10.0.0.5:5432", "mode": "drain"},
    "ban": {"network": "192.0.2.0/24", "for": "10m"},
    "unban": {"network": "192.0.2.0/24"},
    "publish": {"topic": "news", "message": "hello"},
}
READ_ONLY = {"status", "connections", "explain", "certificates", "bans"}


def _line(verb: str, **arguments: Any) -> bytes:
    return json.dumps({"verb": verb, **arguments}).encode()


def _refusal(line: bytes, *, may_administer: bool = True) -> ControlError:
    with pytest.raises(ControlError) as refused:
        parse_request(line, may_administer=may_administer)
    return refused.value


@pytest.mark.parametrize("verb", VERBS)
def test_verb_is_taken_as_root(verb: str) -> None:
    request = parse_request(_line(verb, **EXAMPLES.get(verb, {})), may_administer=True)
    assert request.keys() == {"verb", *VERBS[verb].arguments}


@pytest.mark.parametrize("verb", VERBS)
def test_only_looking_is_for_everybody(verb: str) -> None:
    line = _line(verb, **EXAMPLES.get(verb, {}))
    if verb in READ_ONLY:
        assert parse_request(line, may_administer=False)["verb"] == verb
    else:
        refusal = _refusal(line, may_administer=False)
        assert str(refusal) == f"{verb}: not permitted; only root and the daemon's own user may"
        assert refusal.status == os.EX_NOPERM == 77


def test_defaults_are_filled_in() -> None:
    request = parse_request(_line("connections"), may_administer=False)
    assert request == {"verb": "connections", "listener": None, "sort": "age", "limit": 100}


def test_arguments_are_taken_as_they_are() -> None:
    request = parse_request(_line("connections", listener="echo", sort="stalled", limit=10_000), may_administer=False)
    assert request == {"verb": "connections", "listener": "echo", "sort": "stalled", "limit": 10_000}
    assert parse_request(_line("connections", listener=None), may_administer=False)["listener"] is None


def test_only_what_waits_for_processes_to_end_is_waited_for_long() -> None:
    slow = {name for name, verb in VERBS.items() if verb.timeout_s == SLOW_S}
    assert slow == {"renew", "restart", "rebalance", "reload", "upgrade"}
    assert {verb.timeout_s for verb in VERBS.values()} == {QUICK_S, SLOW_S}


@pytest.mark.parametrize("verb", VERBS.values())
def test_table_says_what_everything_is(verb: object) -> None:
    assert all(argument.what for argument in verb.arguments.values())  # type: ignore[attr-defined]
    assert re.match("[a-z]", verb.what)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\r",
        b"status",
        b"[]",
        b"null",
        b"{}",
        b'{"verb": null}',
        b'{"verb": ["status"]}',
        b'{"verb": "status"',
        b'{"verb": "status"} {"verb": "status"}',
        b"\xff\xfe",
        '{"verb": "status"}'.encode("utf-16"),
        b"[" * 60_000,
        b"1" * 60_000,
        b'{"verb": "status", "x": ' + b"[" * 30_000,
    ],
    ids=lambda line: repr(line[:30]),
)
def test_what_is_no_request_is_refused(line: bytes) -> None:
    refusal = _refusal(line)
    assert str(refusal) == 'a request is a line with a JSON object that has a verb: {"verb": "status"}'
    assert refusal.status == os.EX_USAGE == 64


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (_line("statu"), "unknown verb 'statu'; did you mean status?"),
        (
            _line("fly"),
            "unknown verb 'fly'; there is status, connections, explain, kill, certificates, renew, restart, rebalance, "
            "reload, upgrade, drain, server, bans, ban, unban, publish",
        ),
        (_line("status", verbose=True), "status: unknown argument 'verbose'; it takes none"),
        (
            _line("connections", limt=1),
            "connections: unknown argument 'limt'; did you mean limit?",
        ),
        (
            _line("connections", offset=1),
            "connections: unknown argument 'offset'; there is listener, sort, limit",
        ),
        (_line("drain"), "drain: listener is missing; write the name of a listener"),
        (
            _line("kill"),
            "kill: connection is missing; write a connection's id, as `gaiod connections` shows it (3-1831)",
        ),
        (_line("drain", listener=3), "drain: listener: write the name of a listener, as a JSON string"),
        (_line("drain", listener=None), "drain: listener: write the name of a listener, as a JSON string"),
        (
            _line("connections", listener=["echo"]),
            "connections: listener: write the name of a listener (null: all), as a JSON string",
        ),
        (
            _line("connections", sort="size"),
            "connections: sort: 'size' is none of age, bytes, stalled, buffered, traffic",
        ),
        (_line("connections", sort=None), "connections: sort: write what comes first, as a JSON string"),
        (
            _line("kill", connection="3"),
            "kill: connection: '3' is not a connection's id, as `gaiod connections` shows it (3-1831)",
        ),
    ],
)
def test_refusal_says_what_to_write(line: bytes, message: str) -> None:
    refusal = _refusal(line)
    assert (str(refusal), refusal.status) == (message, 64)


@pytest.mark.parametrize("limit", [0, -1, 10_001, 1.0, True, "10", None, [], 10**30])
def test_limit_is_a_whole_number_in_a_range(limit: object) -> None:
    message = str(_refusal(_line("connections", limit=limit)))
    assert message == "connections: limit: write a whole number from 1 to 10000"


@pytest.mark.parametrize("connection", ["", "3-", "-1", "3-1-2", "3-1\n", "\u0663-\u0661", "3-" + "1" * 20, " 3-1"])
def test_connection_is_two_numbers(connection: str) -> None:
    assert "is not a connection's id" in str(_refusal(_line("kill", connection=connection)))


@pytest.mark.parametrize("verb", ["a" * 60_000, "\x1b[31mred", "\u202etxt", "\ud800"])
def test_text_of_the_client_comes_back_short_and_printable(verb: str) -> None:
    message = str(_refusal(_line(verb)))
    assert len(message) < 250
    assert message.isascii()
    assert message.isprintable()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(["listener", "sort", "limit", "connection", "x", ""])


@given(st.binary(max_size=200) | st.builds(lambda value: json.dumps(value).encode(), json_values))
@example(b"1" * 5000)
def test_any_bytes_are_a_request_or_refused(line: bytes) -> None:
    try:
        assert parse_request(line, may_administer=True)["verb"] in VERBS
    except ControlError as refusal:
        assert refusal.status == 64


@given(st.sampled_from(sorted(VERBS)), st.dictionaries(names, json_values, max_size=3))
def test_any_arguments_are_taken_or_refused(verb: str, arguments: dict[str, Any]) -> None:
    try:
        request = parse_request(_line(verb, **arguments), may_administer=True)
    except ControlError as refusal:
        assert str(refusal).startswith(f"{verb}: ")
    else:
        assert request.items() >= {"verb": verb, **arguments}.items()


# -- messages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", ["", "hello", "é" * 24_576, "x" * MESSAGE_MAX_BYTES])
def test_message_that_a_command_takes_fits_into_a_request(message: str) -> None:
    check_message("news", message)
    request = {"verb": "publish", "listener": "l" * 255, "topic": "t" * 255, "message": message}
    line = json_of(request)
    assert len(line) <= LINE_MAX_BYTES
    assert parse_request(line, may_administer=True) == request


@pytest.mark.parametrize("message", ["x" * (MESSAGE_MAX_BYTES + 1), '"' * 40_000, "\x00" * 20_000, "\udc80" * 20_000])
def test_message_that_would_not_fit_is_refused_and_another_way_named(message: str) -> None:
    with pytest.raises(ControlError, match=r"the message has \d+ bytes; .* publish it over HTTP") as refused:
        check_message("news", message)
    assert refused.value.status == os.EX_DATAERR == 65


@pytest.mark.parametrize(("topic", "message", "what"), [("news", "\udcff", "message"), ("\udcff", "hello", "topic")])
def test_what_is_no_text_is_refused_and_another_way_named(topic: str, message: str, what: str) -> None:
    with pytest.raises(ControlError, match=f"the {what} is no UTF-8; publish it over HTTP"):
        check_message(topic, message)


def test_what_no_text_can_hold_is_escaped_in_json() -> None:
    assert json_of("é\udcff") == b'"\xc3\xa9\\udcff"'
    assert json.loads(json_of("é\udcff")) == "é\udcff"
