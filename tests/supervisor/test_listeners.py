"""The listening sockets: what a new configuration keeps, opens and closes."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from core.support.sockets import listen
from e2e.support.clients import connect

from gaiod.addresses import SYSTEMD
from gaiod.settings import ListenerSettings, Settings
from gaiod.supervisor.sockets.bind import BindError
from gaiod.supervisor.sockets.listeners import Listeners, OpenListener, Prepared


@pytest.fixture
def listeners() -> Iterator[Listeners]:
    """None open yet; they are closed with the test."""
    listeners = Listeners()
    yield listeners
    listeners.close()


def settings(*binds: str, workers: int = 1, **more: object) -> Settings:
    """Return settings with a listener for each address, named l0, l1, ..."""
    each = [
        ListenerSettings(name=f"l{number}", bind=bind, handler="echo", **more)  # type: ignore[arg-type]
        for number, bind in enumerate(binds)
    ]
    return Settings(listeners=tuple(each), workers=workers, metrics_listen="127.0.0.1:0")


def _serve(listeners: Listeners, wanted: Settings) -> Prepared:
    prepared = listeners.prepare(wanted)
    listeners.commit(prepared)
    return prepared


def _fds(listener: OpenListener) -> list[str]:
    return [str(sock.fileno()) for sock in listener.sockets]


# -- opening ---------------------------------------------------------------------------------------------


def test_tcp_listener_has_a_socket_for_each_worker_at_one_address(listeners: Listeners) -> None:
    prepared = _serve(listeners, settings("127.0.0.1:0", workers=3))
    (listener,), metrics = prepared.listeners, prepared.metrics
    assert {sock.getsockname() for sock in listener.sockets} == {listener.sockets[0].getsockname()}
    assert (len(listener.sockets), len(metrics.sockets), listener.shared) == (3, 1, False)


def test_unix_listener_has_one_socket_for_all_workers(listeners: Listeners, tmp_path: Path) -> None:
    (listener,) = _serve(listeners, settings(f"unix:{tmp_path}/x", workers=3)).listeners
    assert (len(listener.sockets), listener.shared) == (1, True)
    assert [listener.sockets_of(worker, 3) for worker in range(3)] == [listener.sockets] * 3


@pytest.mark.parametrize(("sockets", "workers"), [(1, 1), (3, 3), (5, 2), (2, 1)])
def test_every_socket_is_served_by_one_worker(sockets: int, workers: int) -> None:
    """Also those of workers that are not to come back: clients wait there."""
    made = [socket.socket() for _ in range(sockets)]
    try:
        listener = OpenListener("x", made, shared=False)
        served = [sock for worker in range(workers) for sock in listener.sockets_of(worker, workers)]
        assert sorted(map(id, served)) == sorted(map(id, made))
    finally:
        for sock in made:
            sock.close()


# -- another configuration -------------------------------------------------------------------------------


def test_listener_that_stays_keeps_its_sockets(listeners: Listeners) -> None:
    first = _serve(listeners, settings("127.0.0.1:0"))
    second = _serve(listeners, settings("127.0.0.1:0", "127.0.0.1:0"))
    assert _fds(second.listeners[0]) == _fds(first.listeners[0])
    assert second.listeners[0].address != second.listeners[1].address


def test_more_workers_get_more_sockets_and_fewer_lose_none(listeners: Listeners) -> None:
    one = _serve(listeners, settings("127.0.0.1:0", workers=1)).listeners[0]
    three = _serve(listeners, settings("127.0.0.1:0", workers=3)).listeners[0]
    assert _fds(three)[:1] == _fds(one)
    assert len(three.sockets) == 3
    again = _serve(listeners, settings("127.0.0.1:0", workers=1)).listeners[0]
    assert _fds(again) == _fds(three)


def test_listener_that_goes_is_closed_only_when_the_new_ones_serve(listeners: Listeners, tmp_path: Path) -> None:
    path = tmp_path / "x"
    _serve(listeners, settings(f"unix:{path}"))
    prepared = listeners.prepare(settings("127.0.0.1:0"))
    connect(f"unix:{path}").close()
    listeners.commit(prepared)
    assert not path.exists()


def test_options_change_on_the_sockets_that_are_there(listeners: Listeners) -> None:
    before = _serve(listeners, settings("127.0.0.1:0")).listeners[0]
    after = _serve(listeners, settings("127.0.0.1:0", nodelay=False, keepalive_s=None, backlog=7)).listeners[0]
    (sock,) = after.sockets
    assert _fds(before) == _fds(after)
    assert not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    assert int.from_bytes(info[28:32], "little") == 7


def test_nothing_is_opened_when_one_address_cannot_be_had(listeners: Listeners, tmp_path: Path) -> None:
    with listen() as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BindError, match="listener l1: cannot listen on"):
            listeners.prepare(settings(f"unix:{tmp_path}/x", f"127.0.0.1:{port}"))
    assert not (tmp_path / "x").exists()


def test_abandoned_configuration_closes_what_was_opened_for_it_and_nothing_else(
    listeners: Listeners, tmp_path: Path
) -> None:
    kept = _serve(listeners, settings("127.0.0.1:0")).listeners[0]
    listeners.abandon(listeners.prepare(settings("127.0.0.1:0", f"unix:{tmp_path}/x", workers=2)))
    assert not (tmp_path / "x").exists()
    connect(kept.address).close()
    assert len(listeners.handed_over()["127.0.0.1:0 listener l0"][0]) == 1


# -- where sources listen --------------------------------------------------------------------------------


def sourced(bind: str, *inlets: str, workers: int = 1, **more: object) -> Settings:
    """Return settings with a listener whose source `in` has these addresses."""
    listener = ListenerSettings("l0", bind, "push", inlets=tuple(("in", each) for each in inlets), **more)  # type: ignore[arg-type]
    return Settings((listener,), workers=workers, metrics_listen="127.0.0.1:0")


def test_address_of_a_source_has_one_socket_and_keeps_it_while_it_is_configured(
    listeners: Listeners, tmp_path: Path
) -> None:
    address = f"unix:{tmp_path}/in"
    before = _serve(listeners, sourced("127.0.0.1:0", address, workers=2)).inlets[address]
    connect(address).close()
    after = _serve(listeners, sourced("127.0.0.1:0", address, workers=3, backlog=9)).inlets[address]
    assert _fds(before) == _fds(after)
    assert len(after.sockets) == 1
    assert set(listeners.handed_over()) >= {address}, "the next daemon gets it"
    _serve(listeners, sourced("127.0.0.1:0"))
    assert not (tmp_path / "in").exists()


def test_address_of_a_source_that_another_process_has_is_told_with_the_name_of_the_source(
    listeners: Listeners, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(BindError, match=f"listener l0: source in: cannot listen on {address}: Address already in"):
            listeners.prepare(sourced(f"unix:{tmp_path}/x", f"unix:{tmp_path}/in", address))
    assert not list(tmp_path.iterdir())


def test_address_can_become_that_of_a_source_and_of_a_listener_again(listeners: Listeners) -> None:
    """Clients may wait at each of its sockets, so none is closed, and a source serves all."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    before = _serve(listeners, settings(address, workers=3)).listeners[0]
    inlet = _serve(listeners, sourced("127.0.0.1:0", address)).inlets[address]
    assert _fds(inlet) == _fds(before)
    assert _fds(_serve(listeners, settings(address, workers=2)).listeners[0]) == _fds(before)


# -- sockets of others -----------------------------------------------------------------------------------


def test_sockets_that_are_handed_over_are_adopted_by_where_they_are_bound(listeners: Listeners) -> None:
    other = Listeners()
    before = _serve(other, settings("127.0.0.1:0", workers=2)).listeners[0]
    for key, (fds, shared) in other.handed_over().items():
        listeners.adopt(key, [socket.socket(fileno=socket.dup(fd)) for fd in fds], shared=shared)
    after = _serve(listeners, settings("127.0.0.1:0", workers=2)).listeners[0]
    other.close(keep_files=True)
    assert after.address == before.address
    connect(after.address).close()


def test_socket_of_systemd_is_kept_whether_it_is_configured_or_not(listeners: Listeners) -> None:
    sock = listen()
    listeners.adopt(f"{SYSTEMD}web", [sock], shared=True)
    _serve(listeners, settings("127.0.0.1:0"))
    assert sock.fileno() >= 0
    (listener,) = _serve(listeners, settings("systemd:web", workers=2)).listeners
    assert listener.sockets == [sock]
    assert listener.shared


def test_socket_that_systemd_did_not_hand_over_is_asked_for(listeners: Listeners) -> None:
    with pytest.raises(BindError, match=r"systemd handed over no sockets: .* with FileDescriptorName=web"):
        listeners.prepare(settings("systemd:web"))


def test_files_stay_when_somebody_else_serves_the_sockets(tmp_path: Path) -> None:
    listeners = Listeners()
    _serve(listeners, settings(f"unix:{tmp_path}/x"))
    listeners.close(keep_files=True)
    assert (tmp_path / "x").exists()


def test_one_listener_is_closed_alone(listeners: Listeners, tmp_path: Path) -> None:
    one, two = _serve(listeners, settings(f"unix:{tmp_path}/x", "127.0.0.1:0")).listeners
    listeners.close_one(one)
    assert not (tmp_path / "x").exists()
    connect(two.address).close()


# -- the moment from which they take clients -------------------------------------------------------------


def _listens(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def test_further_sockets_take_no_clients_before_they_are_committed(listeners: Listeners) -> None:
    """Nobody serves them yet; were they given up, their clients would be reset."""
    first = _serve(listeners, settings("127.0.0.1:0"))
    bind = first.listeners[0].address
    _serve(listeners, settings(bind))
    prepared = listeners.prepare(settings(bind, workers=3))
    assert [_listens(sock) for sock in prepared.listeners[0].sockets] == [True, False, False]
    listeners.commit(prepared)
    assert all(_listens(sock) for sock in prepared.listeners[0].sockets)


@pytest.mark.parametrize(("before", "after"), [("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1")])
def test_address_that_overlaps_with_an_own_one_is_no_conflict(listeners: Listeners, before: str, after: str) -> None:
    port = _serve(listeners, settings(f"{before}:0")).listeners[0].address.rpartition(":")[2]
    _serve(listeners, settings(f"{before}:{port}"))
    moved = _serve(listeners, settings(f"{after}:{port}")).listeners[0]
    assert moved.address == f"{after}:{port}"
    with connect(f"127.0.0.1:{port}"):
        pass


def test_option_that_the_kernel_refuses_is_told_and_ends_nothing(
    listeners: Listeners, caplog: pytest.LogCaptureFixture
) -> None:
    _serve(listeners, settings("127.0.0.1:0"))
    _serve(listeners, settings("127.0.0.1:0", keepalive_s=1e6))
    assert "listener l0: some socket options could not be set" in caplog.text
