"""What the daemon does when it is asked over its control socket."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from core.support.waiting import LIMIT_S, MOMENT_S
from e2e.support.clients import connect, exchange, is_ended

from gaiod.control.protocol import ControlError
from gaiod.supervisor.file_watch import Told, WatchedFile
from gaiod.supervisor.operators import commands as module
from gaiod.supervisor.operators.commands import Commands
from gaiod.supervisor.processes.health import Health
from gaiod.supervisor.processes.rebalance import Rebalancing
from supervisor.support.fleets import FleetUnderTest, skewed
from supervisor.test_snapshot import Seen


class Asked:
    """The commands of a fleet."""

    def __init__(self, fleet: FleetUnderTest) -> None:
        self._fleet = fleet
        self.drained: list[str] = []
        self.outcome = (0, "7")
        self.renewals: list[tuple[WatchedFile, str]] | None = []
        self.renewed: list[Any] = []
        self.is_changing = False
        self.rebalancing = Rebalancing(fleet.watcher, fleet.fleet)
        self._commands = Commands(
            fleet.watcher,
            Seen(fleet).subject,
            fleet.fleet,
            Health(fleet.watcher, fleet.fleet, lambda: None),
            Path("gaiod.yaml"),
            rebalancing=self.rebalancing,
            renew=self._renew,
            reload=lambda asker: asker(self.outcome),
            upgrade=lambda asker: asker(self.outcome),
            drain=self._drain,
            is_changing=lambda: self.is_changing,
        )

    def _renew(self, kinds: Any, told: Told) -> None:
        self.renewed.append(kinds)
        told(self.renewals)

    def _drain(self, name: str) -> None:
        self.drained.append(name)
        self._fleet.fleet.drain_listener(name, LIMIT_S)

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Return the answer."""
        replies: list[dict[str, Any]] = []
        self._commands.answer({"verb": verb, **arguments}, replies.append)
        self._fleet.run_until(lambda: replies)
        return replies[0]

    def connections(self, **more: Any) -> dict[str, Any]:
        """Return the result of that."""
        arguments = {"listener": None, "sort": "age", "limit": 100, **more}
        result: dict[str, Any] = self.ask("connections", **arguments)["result"]
        return result


@pytest.fixture
def asked(fleet: FleetUnderTest) -> Asked:
    """The commands of a fleet that does not serve yet."""
    return Asked(fleet)


def test_status_tells_which_process_and_which_file(fleet: FleetUnderTest, asked: Asked) -> None:
    fleet.serve()
    result = asked.ask("status")["result"]
    assert (result["pid"], result["config"]) == (os.getpid(), str(Path("gaiod.yaml").absolute()))


def test_connections_of_all_workers_are_merged(fleet: FleetUnderTest, asked: Asked) -> None:
    fleet.serve(workers=2)
    socks = [connect(fleet.address) for _ in range(6)]
    try:
        for number, sock in enumerate(socks, 1):
            assert exchange(sock, bytes(10 * number)) == bytes(10 * number)
        result = asked.connections(sort="bytes", limit=4)
        assert result["total"] == 6
        assert [row["received_bytes"] for row in result["connections"]] == [60, 50, 40, 30]
        assert asked.connections(listener="echo")["total"] == 6
    finally:
        for sock in socks:
            sock.close()


def test_connections_are_told_when_a_worker_dies_meanwhile(fleet: FleetUnderTest, asked: Asked) -> None:
    fleet.serve(workers=2)
    fleet.fleet.serving[0].process.kill()
    assert asked.connections() == {"total": 0, "connections": [], "silent_workers": []}


def test_connections_before_anything_serves_are_none(asked: Asked) -> None:
    assert asked.connections() == {"total": 0, "connections": [], "silent_workers": []}


def test_killed_connection_ends_and_one_that_is_gone_is_refused(fleet: FleetUnderTest, asked: Asked) -> None:
    fleet.serve()
    with connect(fleet.address) as sock:
        assert exchange(sock, b"ping") == b"ping"
        (row,) = asked.connections()["connections"]
        assert asked.ask("kill", connection=row["id"])["ok"]
        assert is_ended(sock)
    answer = asked.ask("kill", connection=row["id"])
    assert (answer["ok"], answer["status"]) == (False, os.EX_UNAVAILABLE)
    answer = asked.ask("kill", connection="999-1")
    assert (answer["ok"], answer["status"]) == (False, os.EX_UNAVAILABLE)
    assert "there is no connection 999-1" in answer["error"]


@pytest.mark.parametrize(
    ("verb", "result"),
    [("reload", {"generation": 7, "changes": [], "without_servers": []}), ("upgrade", {"pid": 7})],
    ids=str,
)
def test_outcome_is_told(asked: Asked, verb: str, result: dict[str, Any]) -> None:
    assert asked.ask(verb) == {"ok": True, "result": result}
    asked.outcome = (78, "gaiod.yaml:1:1: wrong")
    answer = asked.ask(verb)
    assert (answer["ok"], answer["status"], answer["error"]) == (False, 78, "gaiod.yaml:1:1: wrong")


def test_restart_tells_which_workers_were_replaced(fleet: FleetUnderTest, asked: Asked) -> None:
    fleet.serve(workers=2)
    assert asked.ask("restart") == {"ok": True, "result": {"workers": [0, 1]}}


def test_connections_are_evened_out_and_it_is_told_who_has_how_many(fleet: FleetUnderTest, asked: Asked) -> None:
    fleet.serve(workers=2, handover=True)
    with skewed(fleet, 10):
        answer = asked.ask("rebalance", listener=None)["result"]
        assert (answer["moved"], answer["stayed"], answer["even"], answer["left_out"]) == (5, {}, True, {})
        workers = [
            {"worker": 0, "before": 10, "after": 5},
            {"worker": 1, "before": 0, "after": 5},
        ]
        assert answer["listeners"] == [{"listener": "echo", "workers": workers}]
        again = asked.ask("rebalance", listener="echo")["result"]
        assert (again["moved"], again["even"]) == (0, True)


def test_one_worker_has_nothing_to_even_out(fleet: FleetUnderTest, asked: Asked) -> None:
    fleet.serve(handover=True)
    answer = asked.ask("rebalance", listener=None)["result"]
    assert (answer["moved"], answer["even"]) == (0, True)
    assert answer["listeners"] == [{"listener": "echo", "workers": [{"worker": 0, "before": 0, "after": 0}]}]


@pytest.mark.parametrize(
    ("how", "listener", "why", "status"),
    [
        ({}, "echo", "connections of listener echo cannot move: it has handover: false", os.EX_USAGE),
        ({}, None, "connections of listener echo cannot move: it has handover: false", os.EX_USAGE),
        ({"handover": True}, "nothing", "there is no listener nothing; there is echo", os.EX_USAGE),
        ({"handover": True, "off": True}, "echo", "cannot move: handover.enabled is false", os.EX_USAGE),
        ({"handover": True, "drained": True}, "echo", "cannot move: it is drained", os.EX_TEMPFAIL),
        ({"handover": True, "changing": True}, None, "a reload or an upgrade is under way", os.EX_TEMPFAIL),
    ],
)
def test_what_cannot_be_evened_out_is_refused(
    fleet: FleetUnderTest, asked: Asked, how: dict[str, Any], listener: str | None, why: str, status: int
) -> None:
    fleet.serve(workers=2, handover=how.get("handover", False), allowed=not how.get("off", False))
    if how.get("drained"):
        fleet.fleet.drain_listener("echo", LIMIT_S)
    asked.is_changing = how.get("changing", False)
    with pytest.raises(ControlError, match=why) as refused:
        asked.ask("rebalance", listener=listener)
    assert refused.value.status == status


def test_connections_are_evened_out_once_at_a_time(fleet: FleetUnderTest, asked: Asked) -> None:
    fleet.serve(workers=2, handover=True)
    with skewed(fleet, 4):
        outcomes: list[object] = []
        asked.rebalancing.begin(["echo"], outcomes.append)
        with pytest.raises(ControlError, match="are being evened out already") as refused:
            asked.ask("rebalance", listener=None)
        assert refused.value.status == os.EX_TEMPFAIL
        fleet.run_until(lambda: outcomes)


def test_restart_during_a_reload_is_refused_and_says_why(fleet: FleetUnderTest, asked: Asked) -> None:
    fleet.serve()
    asked.is_changing = True
    with pytest.raises(ControlError, match="a reload or an upgrade is under way, which starts new workers") as refused:
        asked.ask("restart")
    assert refused.value.status == os.EX_TEMPFAIL


def test_drain_tells_how_many_connections_go_on(fleet: FleetUnderTest, asked: Asked) -> None:
    fleet.serve()
    with connect(fleet.address) as sock:
        assert exchange(sock, b"ping") == b"ping"
        assert asked.ask("drain", listener="echo") == {"ok": True, "result": {"connections": 1}}
        assert asked.drained == ["echo"]
        with pytest.raises(ControlError, match="drained already"):
            asked.ask("drain", listener="echo")
    with pytest.raises(ControlError, match="there is no listener nothing; there is echo"):
        asked.ask("drain", listener="nothing")


@pytest.mark.parametrize(
    ("verb", "arguments"), [("restart", {}), ("rebalance", {"listener": None}), ("drain", {"listener": "echo"})]
)
def test_commands_are_refused_before_it_serves(asked: Asked, verb: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ControlError) as refused:
        asked.ask(verb, **arguments)
    assert refused.value.status == os.EX_TEMPFAIL


def test_connection_is_explained_while_it_is_open_and_when_it_has_closed(fleet: FleetUnderTest, asked: Asked) -> None:
    fleet.serve()
    with connect(fleet.address) as sock:
        assert exchange(sock, b"ping") == b"ping"
        (row,) = asked.connections()["connections"]
        told = asked.ask("explain", connection=row["id"])["result"]
        assert (told["id"], told["worker"], told["state"]) == (row["id"], 0, "open")
        assert (told["listener"], told["sides"][0]["received_bytes"]) == ("echo", 4)
    fleet.run_until(lambda: asked.connections()["total"] == 0)
    told = asked.ask("explain", connection=row["id"])["result"]
    assert (told["state"], told["reason"], told["peer"]) == ("closed", "peer_eof", row["peer"])


def test_connection_that_nobody_knows_is_not_explained(fleet: FleetUnderTest, asked: Asked) -> None:
    fleet.serve()
    instance = fleet.fleet.serving[0].process.instance
    answer = asked.ask("explain", connection=f"{instance}-{2**40}")
    assert (answer["ok"], answer["status"]) == (False, os.EX_UNAVAILABLE)
    assert "it closed longer ago than is remembered, was lost with its worker, or never was" in answer["error"]
    assert asked.ask("explain", connection="999-1")["status"] == os.EX_UNAVAILABLE


def test_worker_that_hangs_is_said_to_when_its_connection_is_to_be_explained(
    fleet: FleetUnderTest, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.serve()
    monkeypatch.setattr(module, "PATIENCE_S", MOMENT_S)
    process = fleet.fleet.serving[0].process
    os.kill(process.pid, signal.SIGSTOP)
    try:
        answer = asked.ask("explain", connection=f"{process.instance}-1")
    finally:
        os.kill(process.pid, signal.SIGCONT)
    assert (answer["ok"], answer["status"]) == (False, os.EX_TEMPFAIL)
    assert "worker 0 did not answer" in answer["error"]


def test_worker_that_dies_while_it_is_asked_is_said_to(fleet: FleetUnderTest, asked: Asked) -> None:
    fleet.serve()
    process = fleet.fleet.serving[0].process
    os.kill(process.pid, signal.SIGSTOP)
    process.kill()
    answer = asked.ask("explain", connection=f"{process.instance}-1")
    assert (answer["ok"], answer["status"]) == (False, os.EX_UNAVAILABLE)


def test_server_of_a_handler_that_knows_nothing_of_operators_is_refused(fleet: FleetUnderTest, asked: Asked) -> None:
    fleet.serve()
    with pytest.raises(ControlError, match="listener echo has no servers that can be drained: its handler has no on_"):
        asked.ask("server", listener="echo", server="10.0.0.1:1", mode="drain", weight=None)
    with pytest.raises(ControlError, match="there is no listener nowhere; there is echo"):
        asked.ask("server", listener="nowhere", server="10.0.0.1:1", mode="drain", weight=None)


def test_who_is_banned_is_closed_listed_and_may_come_again(fleet: FleetUnderTest, asked: Asked) -> None:
    fleet.serve()
    with connect(fleet.address) as sock:
        assert exchange(sock, b"here") == b"here"
        assert asked.ask("ban", network="127.0.0.1", **{"for": "1h"})["result"] == {"network": "127.0.0.1/32"}
        fleet.run_until(lambda: is_ended(sock))
    (row,) = asked.ask("bans")["result"]["bans"]
    assert row["network"] == "127.0.0.1/32"
    assert 3500 < row["left_s"] <= 3600
    assert asked.ask("ban", network="127.0.0.1", **{"for": None})["ok"]
    assert asked.ask("bans")["result"]["bans"] == [{"network": "127.0.0.1/32", "left_s": None}]
    assert asked.ask("status")["result"]["bans"] == 1
    assert asked.ask("unban", network="127.0.0.1/32")["result"] == {"network": "127.0.0.1/32"}
    assert asked.ask("bans")["result"]["bans"] == []


def test_ban_whose_time_is_over_ends(fleet: FleetUnderTest, asked: Asked) -> None:
    fleet.serve()
    fleet.fleet.ban("127.0.0.1/32", 0.0)
    fleet.fleet.end_bans()
    assert asked.ask("bans")["result"]["bans"] == []
    with connect(fleet.address) as sock:
        assert exchange(sock, b"here") == b"here"


@pytest.mark.parametrize(
    ("verb", "network", "why"),
    [
        ("ban", "0.0.0.0/0", "0.0.0.0/0 is too wide; write /8 or longer, or access rules that refuse so many"),
        ("unban", "192.0.2.7", "192.0.2.7/32 is not banned; gaiod bans shows who is"),
    ],
)
def test_ban_that_makes_no_sense_is_refused(
    fleet: FleetUnderTest, asked: Asked, verb: str, network: str, why: str
) -> None:
    fleet.serve()
    with pytest.raises(ControlError) as error:
        asked.ask(verb, network=network, **({"for": None} if verb == "ban" else {}))
    assert str(error.value) == why


def test_bans_do_not_change_while_a_new_daemon_has_been_told_of_them(fleet: FleetUnderTest, asked: Asked) -> None:
    fleet.serve()
    asked.is_changing = True
    with pytest.raises(ControlError, match="a reload or an upgrade is under way"):
        asked.ask("ban", network="192.0.2.7", **{"for": None})


def test_no_more_than_so_many_are_banned(fleet: FleetUnderTest, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.serve()
    monkeypatch.setattr("gaiod.supervisor.processes.bans.BANS_MAX", 0)
    with pytest.raises(ControlError, match="0 networks are banned already"):
        asked.ask("ban", network="192.0.2.7", **{"for": None})


def test_certificates_are_read_now_and_what_came_of_it_is_told(fleet: FleetUnderTest, asked: Asked) -> None:
    fleet.serve()
    asked.renewals = [
        (WatchedFile("certificate", ("/a.pem", "/a.key")), "renewed"),
        (WatchedFile("clients", ("/ca.pem",), error="/ca.pem: it is none"), "refused"),
    ]
    assert asked.ask("renew")["result"]["files"] == [
        {"kind": "certificate", "file": "/a.pem", "files": ("/a.pem", "/a.key"), "result": "renewed", "error": None},
        {"kind": "clients", "file": "/ca.pem", "files": ("/ca.pem",), "result": "refused",
         "error": "/ca.pem: it is none"},
    ]  # fmt: skip
    assert asked.renewed == [{"certificate", "clients"}]
    asked.renewals = None
    answer = asked.ask("renew")
    assert (answer["ok"], answer["status"]) == (False, os.EX_TEMPFAIL)
    assert "a reload or an upgrade is under way" in answer["error"]


def test_no_certificates_are_none(fleet: FleetUnderTest, asked: Asked) -> None:
    fleet.serve()
    assert asked.ask("certificates")["result"] == {"certificates": []}
