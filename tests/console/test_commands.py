"""The commands that speak to a running daemon: what they ask, print, and exit with."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from e2e.support.programs import free_port
from supervisor.support.answers import (
    AT,
    CONNECTIONS_RESULT,
    CONNECTIONS_TEXT,
    STATUS_RESULT,
    STATUS_TEXT,
)
from supervisor.support.controls import played_daemon

from gaiod.cli import main
from gaiod.control.protocol import VERBS, parse_request, refused, succeeded

Outcome = tuple[int, str, str]

ALONE = {"worker": 0, "before": 3, "after": 3}
BALANCE: dict[str, Any] = {
    "moved": 500,
    "stayed": {},
    "even": True,
    "listeners": [
        {
            "listener": "db",
            "workers": [{"worker": 0, "before": 1000, "after": 500}, {"worker": 1, "before": 0, "after": 500}],
        }
    ],
    "left_out": {"raw": "it has handover: false"},
}

RENEWED: dict[str, Any] = {"kind": "certificate", "file": "/a.pem", "result": "renewed", "error": None}

EVERY_COMMAND = [
    ["status"],
    ["health"],
    ["connections"],
    ["explain", "3-1831"],
    ["kill", "3-1831"],
    ["workers", "restart"],
    ["rebalance"],
    ["certificates"],
    ["certificates", "reload"],
    ["reload"],
    ["upgrade"],
    ["drain", "echo"],
    ["server", "db", "10.0.0.5:5432", "drain"],
    ["ban", "192.0.2.7"],
    ["unban", "192.0.2.7"],
    ["bans"],
    ["publish", "news", "hello"],
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a control socket may be."""
    return tmp_path / "control.sock"


def _run(*arguments: str, **environment: str) -> Outcome:
    done = CliRunner().invoke(main, arguments, env=environment)
    return done.exit_code, done.stdout, done.stderr


def _answered(path: Path, answer: dict[str, Any], *arguments: str) -> tuple[dict[str, Any], Outcome]:
    """Run a command against a daemon with one answer; return what it asked, and its outcome."""
    with played_daemon(path, answer) as daemon:
        outcome = _run(*arguments, "--control", str(path))
    return parse_request(daemon.requests[0].rstrip(), may_administer=True), outcome


# -- what they ask and print -----------------------------------------------------------------------------


def test_status_is_shown_for_people(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: AT)
    request, outcome = _answered(path, succeeded(STATUS_RESULT), "status")
    assert outcome == (0, STATUS_TEXT + "\n", "")
    assert request == {"verb": "status"}


@pytest.mark.parametrize(("command", "result"), [("status", STATUS_RESULT), ("connections", CONNECTIONS_RESULT)])
def test_answer_is_printed_as_json_for_programs(path: Path, command: str, result: dict[str, Any]) -> None:
    _, outcome = _answered(path, succeeded(result), command, "--json")
    assert outcome == (0, json.dumps(result, indent=2) + "\n", "")


def test_connections_are_shown_for_people(path: Path) -> None:
    request, outcome = _answered(path, succeeded(CONNECTIONS_RESULT), "connections")
    assert outcome == (0, CONNECTIONS_TEXT + "\n", "")
    assert request == {"verb": "connections", "listener": None, "sort": "age", "limit": 100}


def test_connections_are_asked_for_as_wanted(path: Path) -> None:
    options = ["--listener", "echo", "--sort", "stalled", "--limit", "5"]
    request, outcome = _answered(path, succeeded({"total": 0, "connections": []}), "connections", *options)
    assert outcome == (0, "no connections\n", "")
    assert request == {"verb": "connections", "listener": "echo", "sort": "stalled", "limit": 5}


@pytest.mark.parametrize(
    ("arguments", "request_", "result", "text"),
    [
        (["kill", "3-1831"], {"verb": "kill", "connection": "3-1831"}, {}, "closed: 3-1831"),
        (["workers", "restart"], {"verb": "restart"}, {"workers": [0, 1]}, "restarted: workers 0, 1"),
        (
            ["rebalance"],
            {"verb": "rebalance", "listener": None},
            BALANCE,
            "moved: 500 connections\n  db: worker 0: 1000 -> 500, worker 1: 0 -> 500\n"
            "  raw was left out: it has handover: false",
        ),
        (
            ["rebalance", "db"],
            {"verb": "rebalance", "listener": "db"},
            {
                **BALANCE,
                "listeners": [{"listener": "db", "workers": [{"worker": 0, "before": 3, "after": 3}]}],
                "left_out": {},
            },
            "nothing to do: one worker serves\n  db: worker 0: 3 -> 3",
        ),
        (
            ["reload"],
            {"verb": "reload"},
            {"generation": 4, "changes": ["listener echo: changed: backlog", "changed: workers"]},
            "reloaded: generation 4\n  listener echo: changed: backlog\n  changed: workers",
        ),
        (
            ["reload"],
            {"verb": "reload"},
            {"generation": 5, "changes": []},
            "reloaded: generation 5\n  nothing has changed; connections go on",
        ),
        (
            ["certificates"],
            {"verb": "certificates"},
            {"certificates": []},
            "no certificates: no listener speaks TLS",
        ),
        (
            ["certificates", "reload"],
            {"verb": "renew"},
            {"files": [RENEWED, {**RENEWED, "file": "/b.pem", "result": "unchanged"}]},
            "/a.pem: renewed\n/b.pem: unchanged",
        ),
        (["upgrade"], {"verb": "upgrade"}, {"pid": 913}, "upgraded: process 913 serves"),
        (
            ["drain", "echo"],
            {"verb": "drain", "listener": "echo"},
            {"connections": 12},
            "draining echo: 12 connections may finish",
        ),
        (
            ["server", "db", "10.0.0.5:5432", "maint"],
            {"verb": "server", "listener": "db", "server": "10.0.0.5:5432", "mode": "maint", "weight": None},
            {"listener": "db", "server": "10.0.0.5:5432", "mode": "maint", "weight": 3},
            "server 10.0.0.5:5432 of db: maint, weight 3",
        ),
        (
            ["server", "db", "10.0.0.5:5432", "weight", "0"],
            {"verb": "server", "listener": "db", "server": "10.0.0.5:5432", "mode": None, "weight": "0"},
            {"listener": "db", "server": "10.0.0.5:5432", "mode": "ready", "weight": 0},
            "server 10.0.0.5:5432 of db: ready, weight 0",
        ),
        (
            ["ban", "192.0.2.7", "--for", "10m"],
            {"verb": "ban", "network": "192.0.2.7", "for": "10m"},
            {"network": "192.0.2.7/32"},
            "banned: 192.0.2.7/32 for 10m",
        ),
        (
            ["unban", "192.0.2.7"],
            {"verb": "unban", "network": "192.0.2.7"},
            {"network": "192.0.2.7/32"},
            "may connect again: 192.0.2.7/32",
        ),
        (["bans"], {"verb": "bans"}, {"bans": []}, "nobody is banned"),
        (["bans", "--json"], {"verb": "bans"}, {"bans": []}, '{\n  "bans": []\n}'),
        (
            ["publish", "news", "hello there"],
            {"verb": "publish", "listener": None, "topic": "news", "message": "hello there"},
            {"listeners": ["ticks", "other"]},
            "published: 1 message to ticks, other",
        ),
        (
            ["publish", "--listener", "ticks", "news", ""],
            {"verb": "publish", "listener": "ticks", "topic": "news", "message": ""},
            {"listeners": ["ticks"]},
            "published: 1 message to ticks",
        ),
    ],
)
def test_command_asks_and_says_what_was_done(
    path: Path, arguments: list[str], request_: dict[str, Any], result: dict[str, Any], text: str
) -> None:
    assert _answered(path, succeeded(result), *arguments) == (request_, (0, f"{text}\n", ""))


def test_connections_that_are_not_even_are_said_to_be_so(path: Path) -> None:
    balance = {**BALANCE, "moved": 1, "even": False, "stayed": {"not_quiet": 498, "limit": 1}, "left_out": {}}
    _, (status, out, _) = _answered(path, succeeded(balance), "rebalance")
    assert status == os.EX_TEMPFAIL
    assert out.splitlines()[0] == "moved: 1 connection; they are not even yet"
    assert out.splitlines()[-1] == "  499 did not move: 1 limit, 498 not_quiet"


def test_balance_is_printed_as_json_for_programs(path: Path) -> None:
    _, (status, out, _) = _answered(path, succeeded(BALANCE), "rebalance", "--json")
    assert (status, json.loads(out)) == (0, BALANCE)


def test_certificate_that_is_refused_is_an_exit_status(path: Path) -> None:
    wrong = {**RENEWED, "result": "refused", "error": "/a.pem: the key is not that of the chain"}
    result = {"files": [wrong, {**RENEWED, "file": "/b.pem"}]}
    assert _answered(path, succeeded(result), "certificates", "reload")[1] == (
        os.EX_CONFIG,
        "/a.pem: refused\n/b.pem: renewed\n"
        "  what it had before stays in force: /a.pem: the key is not that of the chain\n",
        "",
    )
    for arguments in (["certificates", "--json", "reload"], ["certificates", "reload", "--json"]):
        path.unlink()
        _, (status, out, _) = _answered(path, succeeded(result), *arguments)
        assert (status, json.loads(out)) == (os.EX_CONFIG, result)


def test_group_of_commands_is_told_where_the_daemon_is(path: Path) -> None:
    with played_daemon(path, succeeded({"files": []})) as daemon:
        outcome = _run("certificates", "--control", str(path), "reload")
    assert (outcome[0], len(daemon.requests)) == (0, 1)


def test_every_verb_has_a_command(path: Path) -> None:
    asked = set()
    for arguments in EVERY_COMMAND:
        asked.add(_answered(path, refused("", 70), *arguments)[0]["verb"])
        path.unlink()
    assert asked == set(VERBS)


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (STATUS_RESULT, (0, "healthy: serving, 1 worker serving\n", "")),
        (
            {**STATUS_RESULT, "state": "stopping", "ready": False},
            (75, "", "not healthy: stopping, 1 worker serving\n"),
        ),
        ({**STATUS_RESULT, "workers": [], "ready": False}, (75, "", "not healthy: serving, 0 workers serving\n")),
    ],
)
def test_health_is_whether_the_daemon_is_ready(path: Path, result: dict[str, Any], outcome: Outcome) -> None:
    assert _answered(path, succeeded(result), "health") == ({"verb": "status"}, outcome)


def test_health_and_reload_name_listeners_of_which_no_server_takes_clients(path: Path) -> None:
    result = {**STATUS_RESULT, "without_servers": ["db", "web"]}
    text = "serving, 1 worker serving; no server of db takes clients; no server of web takes clients\n"
    assert _answered(path, succeeded(result), "health")[1] == (0, f"healthy: {text}", "")
    path.unlink()
    assert _answered(path, succeeded(result), "health", "--servers")[1] == (75, "", f"not healthy: {text}")
    path.unlink()
    outcome = _answered(path, succeeded({"generation": 4, "changes": ["x"], "without_servers": ["db"]}), "reload")[1]
    warning = "warning: no server of db takes clients; gaiod status and the log say why\n"
    assert outcome == (0, "reloaded: generation 4\n  x\n", warning)
    assert _run("health", "--servers", "--url", "http://127.0.0.1:1/")[0] == 64


def test_servers_of_a_listener_are_a_table(path: Path) -> None:
    row = {"listener": "db", "server": "10.0.0.5:5432", "up": True, "admin": "ready", "weight": None, "connections": 2}
    rows = [
        {**row, "made": 3, "failures": 0},
        {**row, "server": "10.0.0.6:5432", "up": False, "admin": "drain", "weight": 7, "made": 1, "failures": 4},
        {**row, "listener": "web", "made": 1, "failures": 4},
    ]
    status, out, _ = _answered(path, succeeded({**STATUS_RESULT, "servers": rows}), "server", "db")[1]
    assert status == 0
    assert [line.split() for line in out.splitlines()] == [
        ["LISTENER", "SERVER", "STATE", "WEIGHT", "SET", "CONNS", "MADE", "FAILED"],
        ["db", "10.0.0.5:5432", "up", "-", "2", "3", "0"],
        ["db", "10.0.0.6:5432", "drain", "7", "2", "1", "4"],
    ]
    path.unlink()
    outcome = _answered(path, succeeded({**STATUS_RESULT, "servers": rows}), "server", "mail")[1]
    assert outcome == (64, "", "there is no listener mail with servers; there is db, web\n")


@pytest.mark.parametrize("arguments", [["drain", "3"], ["weight"], [], ["fly"]])
def test_server_is_refused_what_it_does_not_know(arguments: list[str]) -> None:
    assert _run("server", "db", "10.0.0.5:5432", *arguments)[0] == 64


def test_health_can_be_asked_of_the_metrics_endpoint() -> None:
    url = f"http://127.0.0.1:{free_port()}/readyz"
    assert _run("health", "--url", url) == (69, "", f"not healthy: {url}: Connection refused\n")


# -- what they say when it was not done --------------------------------------------------------------------


def test_reload_prints_what_is_wrong_as_check_does(path: Path, tmp_path: Path) -> None:
    config = tmp_path / "gaiod.yaml"
    config.write_text("workers: 0\nlisteners: {echo: {bnd: x}}\n")
    checked = _run("check", str(config))
    assert checked[0] == 78
    _, outcome = _answered(path, refused(checked[2].rstrip("\n"), 78), "reload")
    assert outcome == checked


@pytest.mark.parametrize("arguments", EVERY_COMMAND, ids=" ".join)
def test_refusal_goes_to_stderr_and_its_status_is_the_exit_status(path: Path, arguments: list[str]) -> None:
    _, outcome = _answered(path, refused("not permitted", 77), *arguments)
    assert outcome == (77, "", "not permitted\n")


@pytest.mark.parametrize("arguments", EVERY_COMMAND, ids=" ".join)
def test_no_daemon_is_said_so(path: Path, arguments: list[str]) -> None:
    message = f"no gaiod listens on {path}: is it running? --control names another socket\n"
    assert _run(*arguments, "--control", str(path)) == (69, "", message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["kill"], "Missing argument 'CONNECTION'"),
        (["drain"], "Missing argument 'LISTENER'"),
        (["connections", "--sort", "size"], "'size' is not one of 'age', 'bytes', 'stalled'"),
        (["connections", "--limit", "x"], "'x' is not a valid integer"),
        (["workers", "stop"], "No such command 'stop'"),
        (["status", "extra"], "unexpected extra argument"),
        (["publish"], "Missing argument 'TOPIC'"),
    ],
)
def test_wrong_usage_ends_with_64(arguments: list[str], message: str) -> None:
    status, out, err = _run(*arguments)
    assert (status, out) == (64, "")
    assert message in err


# -- where they look for the daemon ------------------------------------------------------------------------


def test_environment_names_the_socket(path: Path) -> None:
    with played_daemon(path, succeeded({"generation": 2, "changes": []})):
        assert _run("reload", GAIOD_CONTROL=str(path))[1].startswith("reloaded: generation 2\n")


def test_option_wins_over_the_environment(path: Path) -> None:
    with played_daemon(path, succeeded({"generation": 2, "changes": []})):
        assert _run("reload", "--control", f"unix:{path}", GAIOD_CONTROL="/nowhere")[0] == 0


def test_socket_is_where_a_daemon_has_it_that_was_not_told_where(path: Path) -> None:
    with played_daemon(path, succeeded({"generation": 2, "changes": []})):
        assert _run("reload", RUNTIME_DIRECTORY=str(path.parent))[0] == 0


# -- messages ----------------------------------------------------------------------------------------------


def _publish(path: Path, lines: bytes, *arguments: str) -> Outcome:
    command = ["publish", *arguments, "--control", str(path)]
    done = CliRunner().invoke(main, command, input=lines)
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.parametrize("arguments", [["news"], ["news", "-"]])
def test_nothing_is_published_when_standard_input_is_empty(path: Path, arguments: list[str]) -> None:
    assert _publish(path, b"", *arguments) == (0, "published: 0 messages\n", "")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"x" * 49_153, "line 1: the message has 49153 bytes; a command takes 49152 at most"),
        (b"x" * 1_000_000, "line 1: the message has 49154 bytes; a command takes 49152 at most"),
        (b"\xff\n", "line 1: the message is no UTF-8; publish it over HTTP"),
    ],
    ids=["long", "endless", "binary"],
)
def test_line_that_is_no_message_is_refused_with_its_number(path: Path, line: bytes, why: str) -> None:
    status, out, err = _publish(path, line, "news")
    assert (status, out) == (65, "")
    assert err.startswith(why)


def test_message_that_is_too_long_is_refused_before_anybody_is_asked(path: Path) -> None:
    status, _, err = _run("publish", "news", "x" * 50_000, "--control", str(path))
    assert status == 65
    assert err.startswith("the message has 50000 bytes; a command takes 49152 at most")
    assert "publish it over HTTP, by a source that takes it" in err
