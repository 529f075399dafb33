"""What the commands print for people: the exact text, aligned and never too wide."""

from typing import Any

import pytest
from supervisor.support.answers import AT, CONNECTIONS_RESULT, CONNECTIONS_TEXT, STATUS_RESULT, STATUS_TEXT

from gaiod.console.columns import CONNECTIONS, LISTENERS, WORKERS
from gaiod.console.tables import WIDTH_MAX, bans_text, certificates_text, connections_text, status_text, table


def _lines(text: str) -> list[str]:
    return text.splitlines()


FED: dict[str, Any] = {
    "feeder": {
        "pid": 820,
        "state": "running",
        "age_s": 250.0,
        "heartbeat_age_s": 0.12,
        "memory_bytes": 20 * 2**20,
        "cpu_seconds": 3.0,
        "restarts": 1,
    },
    "sources": [
        {
            "listener": "ticks",
            "source": "publish",
            "up": True,
            "published": 12,
            "refused": 1,
            "reconnects": 0,
            "gaps": 0,
        },
        {"listener": "ticks", "source": "redis", "up": False, "published": 9, "refused": 0, "reconnects": 3, "gaps": 2},
    ],
}

FED_TEXT = """\
FEEDER PID  STATE       AGE  HEARTBEAT    MEMORY   CPU  RESTARTS
       820  running  4m 10s       0.1s  20.0 MiB  3.0s         1

LISTENER  SOURCE   STATE  PUBLISHED  REFUSED  RECONNECTS  GAPS
ticks     publish  up            12        1           0     0
ticks     redis    down           9        0           3     2"""


# -- the whole -------------------------------------------------------------------------------------------


def test_status_is_two_tables_below_what_runs() -> None:
    assert status_text(STATUS_RESULT, AT) == STATUS_TEXT


def test_status_tells_of_the_feeder_and_of_the_sources_where_there_are_some() -> None:
    assert status_text({**STATUS_RESULT, **FED}, AT) == f"{STATUS_TEXT}\n\n{FED_TEXT}"
    assert status_text({**STATUS_RESULT, "feeder": None, "sources": []}, AT) == STATUS_TEXT


@pytest.mark.parametrize(
    ("reload", "lines"),
    [
        (None, []),
        ({"ok": True, "at": AT - 125, "error": None}, ["last reload 2m 5s ago"]),
        (
            {"ok": False, "at": AT - 4, "error": "a.yaml:1:2: x: bad; write y\na.yaml:3:2: \x1b[2J: bad; remove it"},
            [
                "last reload 4.0s ago: it failed, and changed nothing",
                "  a.yaml:1:2: x: bad; write y",
                r"  a.yaml:3:2: \x1b[2J: bad; remove it",
            ],
        ),
    ],
    ids=["never", "fine", "failed"],
)
def test_status_tells_of_the_last_reload(reload: Any, lines: list[str]) -> None:
    text = _lines(status_text({**STATUS_RESULT, "last_reload": reload}, AT))
    assert text[2 : text.index("")] == lines


def test_status_tells_what_listeners_reject_at_the_moment() -> None:
    first, *others = STATUS_RESULT["listeners"]
    rejected = {"per_address": 3.5, "rate": 1200.0}
    text = status_text({**STATUS_RESULT, "listeners": [{**first, "rejected": rejected}, *others]}, AT)
    more = [line for line in text.splitlines() if line not in STATUS_TEXT.splitlines()]
    assert more == [f"  {first['listener']} rejects 3.5/s per_address, 1.2 k/s rate"]


def test_status_says_how_many_are_banned() -> None:
    assert status_text({**STATUS_RESULT, "bans": 1}, AT).endswith("\n\n1 network banned: gaiod bans shows them")
    assert status_text({**STATUS_RESULT, "bans": 2}, AT).endswith("\n\n2 networks banned: gaiod bans shows them")


def test_bans_are_a_table() -> None:
    bans: list[dict[str, Any]] = [
        {"network": "192.0.2.7/32", "left_s": 250.0},
        {"network": "10.0.0.0/8", "left_s": None},
    ]
    assert bans_text(bans) == "BANNED        TIME LEFT\n192.0.2.7/32     4m 10s\n10.0.0.0/8            -"
    assert bans_text([]) == "nobody is banned"


def test_status_of_a_daemon_that_says_little_is_shown_as_far_as_it_goes() -> None:
    """One of another version, say."""
    assert _lines(status_text({"workers": [{}], "listeners": [{}]}, AT))[-1].split() == ["-"] * 10


def test_status_tells_of_files_and_of_what_is_wrong_with_them() -> None:
    good = {"kind": "access", "file": "/etc/a", "ok": True, "error": None, "read_age_s": 250.0}
    bad = {"kind": "access", "file": "/etc/b", "ok": False, "error": "/etc/b, line 2: x\x1b", "read_age_s": 42.0}
    text = status_text({**STATUS_RESULT, "files": [good, bad]}, AT)
    assert (
        text
        == STATUS_TEXT
        + r"""

FILE    KIND    STATE     READ AGO
/etc/a  access  in force    4m 10s
/etc/b  access  broken         42s
  what it had before stays in force: /etc/b, line 2: x\x1b"""
    )


def test_connections_are_a_table() -> None:
    assert connections_text(CONNECTIONS_RESULT) == CONNECTIONS_TEXT


def test_connections_say_when_there_are_more() -> None:
    text = connections_text({**CONNECTIONS_RESULT, "total": 2345})
    assert _lines(text)[-2:] == ["", "2 of 2345 connections; --limit shows more, --listener fewer"]


def test_connections_are_none() -> None:
    assert connections_text({"total": 0, "connections": []}) == "no connections"


# -- too wide --------------------------------------------------------------------------------------------


LONG_TEXT = """\
LISTENER      BIND           HANDLER        STATE    CONNS  ACCEPTED    RECEIVED     SENT  ACCEPT QUEUE  WAITING
echo          127.0...:7000  echo           serving   1234     0.3/s  12.3 MiB/s  900 B/s        0/1024        -
a-li...-name  unix:....sock  balan...ancer  drained      -         -           -        -             -        -"""


def test_long_text_is_cut_in_the_middle_until_the_table_fits() -> None:
    listener = {
        "listener": "a-listener-of-a-long-name",
        "bind": "unix:/run/gaiod/sockets/of/everybody/front.sock",
        "handler": "/srv/gaiod/handlers/balancer.py:Balancer",
        "state": "drained",
    }
    assert "\n".join(table(LISTENERS, [STATUS_RESULT["listeners"][0], listener])) == LONG_TEXT


@pytest.mark.parametrize("columns", [WORKERS, LISTENERS, CONNECTIONS], ids=["workers", "listeners", "connections"])
def test_table_of_the_largest_values_fits(columns: Any) -> None:
    huge = {
        "worker": 1023, "instance": 99999, "pid": 4194304, "state": "starting", "generation": 9999, "age_s": 8.6e7,
        "heartbeat_age_s": 3599, "connections": 100_000, "memory_bytes": 1023.9 * 2**30, "cpu_seconds": 8.6e7,
        "restarts": 9999, "listener": "l" * 90, "bind": "b" * 90, "handler": "h" * 90, "queue": 65535,
        "server": "s" * 90,
        "queue_limit": 65535, "waiting_for_server": 65535, "id": "99999-999999999", "peer": "p" * 90,
        "idle_s": 8.6e7,
        "received_bytes": 1023.9 * 2**40, "sent_bytes": 1023.9 * 2**40, "buffered_bytes": 1023.9 * 2**20,
        "waiting_s": 8.6e7,
        "rates": {"accepted": 999_900, "received_bytes": 999 * 2**30, "sent_bytes": 999 * 2**30},
    }  # fmt: skip
    assert max(map(len, table(columns, [huge]))) <= WIDTH_MAX


def test_certificates_are_a_table_and_what_is_wrong_is_below_it() -> None:
    row: dict[str, Any] = {
        "listener": "app",
        "names": ["example.org", "*.example.org"],
        "not_after": 1_900_000_000.0,
        "days_left": 1203,
        "files": ["/etc/gaiod/app.pem", "/etc/gaiod/app.key"],
        "since": 1_796_000_000.0,
        "serial": "0A1B",
        "error": None,
        "ok": True,
    }
    wrong = {**row, "listener": "other", "since": None, "ok": False, "error": "/etc/gaiod/app.pem: it has ended"}
    assert _lines(certificates_text([row, wrong, {**wrong, "listener": "third"}])) == [
        "LISTENER  NAMES                          ENDS  DAYS LEFT  STATE                SINCE  SERIAL  FILE",
        "app       example...ple.org  2030-03-17 17:46       1203  in force  2026-11-30 00:53  0A1B    "
        "/etc/gaiod/app.pem",
        "other     example...ple.org  2030-03-17 17:46       1203  broken                   -  0A1B    "
        "/etc/gaiod/app.pem",
        "third     example...ple.org  2030-03-17 17:46       1203  broken                   -  0A1B    "
        "/etc/gaiod/app.pem",
        "  what it had before stays in force: /etc/gaiod/app.pem: it has ended",
    ]
