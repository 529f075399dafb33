"""Reloads, one after the other: what they need, what they change, what they leave."""

import gc
import os
from pathlib import Path
from typing import Any

import pytest
from e2e.support.clients import connect, echoes, exchange
from e2e.support.handlers import IMPORTS
from e2e.support.procfs import children_of, codes_of

from gaiod.config import schema
from gaiod.config.reader import Section
from gaiod.settings import ConnectionLogSettings, ListenerSettings, LogSettings, Settings, TlsSettings
from gaiod.supervisor.processes.generation import Code, Generation
from gaiod.supervisor.reload import KEYS, STOPPING, Outcome, Reloads, changes, key_of
from gaiod.supervisor.sockets.listeners import Prepared
from supervisor.support.fleets import FleetUnderTest

GOOD = 'metrics: {listen: "127.0.0.1:0"}\nlisteners: {echo: {bind: "127.0.0.1:0", handler: echo}}\n'


class Reloading:
    """Reloads of a file, and what they have said."""

    def __init__(self, fleet: FleetUnderTest, path: Path) -> None:
        self._fleet = fleet
        self.path = path
        self.refusal: str | None = None
        self.events: list[str] = []
        self.adopted: list[Prepared] = []
        self.outcomes: list[Outcome] = []
        self.reloads = Reloads(
            fleet.watcher,
            path,
            fleet.listeners,
            fleet.fleet,
            check=self._check,
            begun=lambda: self.events.append("begun"),
            adopted=self._adopt,
            ended=lambda: self.events.append("ended"),
        )

    def _check(self, settings: Settings) -> str | None:
        return self.refusal

    def _adopt(self, prepared: Prepared) -> None:
        self.events.append("adopted")
        self.adopted.append(prepared)

    def reload(self, text: str = GOOD) -> Outcome:
        """Reload, and return how that went."""
        self.path.write_text(text)
        self.reloads.request(self.outcomes.append)
        before = len(self.outcomes)
        self._fleet.run_until(lambda: len(self.outcomes) > before)
        return self.outcomes[-1]


@pytest.fixture
def reloading(fleet: FleetUnderTest, tmp_path: Path) -> Reloading:
    """Reloads of a fleet that serves."""
    fleet.serve()
    return Reloading(fleet, tmp_path / "gaiod.yaml")


def test_reload_tells_its_generation_and_is_counted(fleet: FleetUnderTest, reloading: Reloading) -> None:
    assert reloading.reload() == (0, "2")
    assert reloading.events == ["begun", "adopted", "ended"]
    assert reloading.reloads.results == {"success": 1, "failure": 0}
    assert reloading.reloads.last_error is None
    assert reloading.reloads.last_s is not None
    assert echoes(fleet.address)


def test_file_that_alone_has_changed_is_told_and_its_connections_stay(
    fleet: FleetUnderTest, reloading: Reloading, tmp_path: Path
) -> None:
    blocked = tmp_path / "blocked.txt"
    blocked.write_text("192.0.2.7\n")
    text = GOOD.replace("handler: echo", f'handler: echo, access: ["deny file:{blocked}"]')
    assert reloading.reload(text)[0] == 0
    with connect(fleet.fleet.generation.listeners[0].address) as sock:  # type: ignore[union-attr]
        assert exchange(sock, b"before") == b"before"
        blocked.write_text("192.0.2.8\n")
        assert reloading.reload(text)[0] == 0
        assert reloading.reloads.last_changes == [f"access file {blocked}: what it has is in force"]
        assert exchange(sock, b"after") == b"after"
    assert reloading.reload(text)[0] == 0
    assert reloading.reloads.last_changes == []


@pytest.mark.parametrize(
    ("text", "status", "why"),
    [
        ("listeners: {}\n", 78, "gaiod.yaml:1:12: listeners"),
        (GOOD.replace('bind: "127.0.0.1:0"', 'bind: "192.0.2.1:1"'), 71, "this machine has no such address"),
        (GOOD.replace("echo}}", "./mine.py}}"), 70, "raised LookupError"),
    ],
    ids=["file", "address", "worker"],
)
def test_reload_that_fails_says_why_and_changes_nothing(
    fleet: FleetUnderTest, reloading: Reloading, tmp_path: Path, text: str, status: int, why: str
) -> None:
    (tmp_path / "mine.py").write_text(
        IMPORTS + "class Mine(gaiod.Handler):\n    def on_start(self):\n        raise LookupError\n"
    )
    pid, open_before = fleet.pid(), fleet.listeners.handed_over()
    outcome = reloading.reload(text)
    assert outcome[0] == status
    assert why in outcome[1]
    assert reloading.events == ["begun", "ended"]
    assert reloading.reloads.last_error == outcome[1]
    assert reloading.reloads.results == {"success": 0, "failure": 1}
    assert (fleet.pid(), fleet.listeners.handed_over()) == (pid, open_before)


def test_refused_settings_are_a_failure_of_the_configuration(reloading: Reloading) -> None:
    reloading.refusal = "user: a reload cannot change it"
    assert reloading.reload() == (78, "user: a reload cannot change it")


def test_code_of_a_reload_that_fails_is_closed_at_once(
    fleet: FleetUnderTest, reloading: Reloading, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        IMPORTS + "class Mine(gaiod.Handler):\n    def on_start(self):\n        raise LookupError\n"
    )
    gc.disable()
    try:
        reloading.reload("listeners: {}\n")
        assert codes_of(os.getpid()) == 1
        reloading.reload(GOOD.replace('bind: "127.0.0.1:0"', 'bind: "192.0.2.1:1"'))
        assert codes_of(os.getpid()) == 1
        reloading.refusal = "user: a reload cannot change it"
        reloading.reload()
        assert codes_of(os.getpid()) == 1
        reloading.refusal = None
        reloading.reload(GOOD.replace("echo}}", "./mine.py}}"))
        fleet.run_until(lambda: codes_of(os.getpid()) == 1)
        assert reloading.reloads.results == {"success": 0, "failure": 4}
    finally:
        gc.enable()


def test_requests_during_a_reload_make_one_more(fleet: FleetUnderTest, reloading: Reloading) -> None:
    reloading.path.write_text(GOOD)
    for _ in range(4):
        reloading.reloads.request(reloading.outcomes.append)
    fleet.run_until(lambda: len(reloading.outcomes) == 4)
    assert reloading.outcomes == [(0, "2"), (0, "3"), (0, "3"), (0, "3")]
    assert not reloading.reloads.is_running


def test_stop_gives_up_the_reading_and_everybody_is_told(
    fleet: FleetUnderTest, reloading: Reloading, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(IMPORTS + "time.sleep(3600)\n")
    reloading.path.write_text(GOOD.replace("echo}}", "./mine.py}}"))
    for _ in range(2):
        reloading.reloads.request(reloading.outcomes.append)
    reloading.reloads.stop()
    assert reloading.outcomes == [STOPPING, STOPPING]
    assert not reloading.reloads.is_running
    assert children_of(os.getpid()) == [fleet.pid()]


def _generation(*listeners: ListenerSettings, workers: int = 1, code: str = "") -> Generation:
    made = Code()
    made.versions["echo"] = code
    return Generation(1, Settings(listeners, workers), [], made)


def test_changes_are_told_by_listener_and_key() -> None:
    one = ListenerSettings("one", "127.0.0.1:1", "echo")
    two = ListenerSettings("two", "127.0.0.1:2", "echo")
    changed = ListenerSettings("one", "127.0.0.1:1", "echo", backlog=7, nodelay=False)
    three = ListenerSettings("three", "unix:/x", "echo")
    assert changes(_generation(one, two), _generation(changed, three, workers=2)) == [
        "listener two: removed; its connections drain",
        "listener one: changed: backlog, nodelay",
        "listener three: added, echo on unix:/x",
        "changed: workers",
    ]
    assert changes(_generation(one), _generation(one)) == []


def _changed(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Return how a listener is said to have changed; empty: not."""
    old, new = (ListenerSettings("one", "127.0.0.1:1", "echo", **each) for each in (before, after))
    lines = changes(_generation(old), _generation(new))
    return lines[0].removeprefix("listener one: changed: ") if lines else ""


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({}, {"keepalive_s": 5.0, "notsent_lowat_bytes": 4096}, "keepalive, notsent_lowat"),
        ({"idle_timeout_s": 300.0}, {"idle_timeout_s": 60.0, "user_timeout_s": 120.0}, "idle_timeout"),
        ({"user_timeout_s": 9.0}, {"user_timeout_s": 8.0}, "user_timeout"),
        ({"user_timeout_s": 9.0}, {}, "user_timeout"),
        (
            {"options": {"servers": ["a"], "check": False, "queue": {"limit": 1, "timeout": 2.0}}},
            {"options": {"servers": ["b"], "queue": {"limit": 1, "timeout": 3.0}}, "servers": ("b",)},
            "with.servers, with.check, with.queue.timeout",
        ),
        ({}, {"options": {"greeting": None}}, "with.greeting"),
        ({}, {"tls": TlsSettings(())}, "tls"),
        ({"tls": TlsSettings(())}, {"tls": TlsSettings((), refuses_unknown_names=True)}, "tls.unknown_name"),
        ({}, {"has_state": True}, "what its handler makes of its options"),
    ],
)
def test_changes_of_a_listener_have_the_keys_of_the_file_and_not_what_follows_from_them(
    before: dict[str, Any], after: dict[str, Any], said: str
) -> None:
    assert _changed(before, after) == said


def test_changes_within_a_section_have_the_keys_above_them() -> None:
    log = LogSettings("json", connections=ConnectionLogSettings(closed=True, every_s=9.0))
    before, after = Settings(()), Settings((), metrics_listen="127.0.0.1:1", slow_hook_s=1.0, log=log)
    lines = changes(Generation(1, before, []), Generation(2, after, []))
    assert lines == [
        "changed: slow_hook",
        "changed: metrics.listen",
        "changed: log.format",
        "changed: log.connections.close",
        "changed: log.connections.every",
    ]


def test_settings_are_called_by_the_keys_that_fill_them() -> None:
    sections: list[tuple[str, Section]] = [("", schema.CONFIG), ("", schema.LISTENER), ("", schema.PROXY_PROTOCOL)]
    sections += [("", schema.TLS), ("", schema.CLIENTS), ("metrics.", schema.METRICS), ("control.", schema.CONTROL)]
    sections += [("", schema.RECYCLE), ("", schema.HANDOVER), ("", schema.LOG), ("", schema.LOG_CONNECTIONS)]
    named = {key.setting: above + name for above, section in sections for name, key in section.keys.items()}
    del named[""]
    assert {setting: key_of(setting) for setting in named} == named
    assert set(KEYS) <= set(named)


def test_code_that_has_changed_is_told() -> None:
    one = ListenerSettings("one", "127.0.0.1:1", "echo")
    assert changes(_generation(one), _generation(one, code="another digest")) == ["listener one: changed: code"]
