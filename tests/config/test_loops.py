"""Listeners that would connect to themselves are found when the file is read."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from gaiod.config import ConfigErrors, loads
from gaiod.handler.handler import Handler

Loader = Callable[[str], type[Handler]]


def problems(load_handler: Loader, **listeners: tuple[str, list[str]]) -> list[str]:
    """Return what is said of listeners that are given as where they listen, and their servers."""
    lines = ["listeners:"]
    for name, (bind, servers) in listeners.items():
        lines += [
            f"  {name}:",
            f'    bind: "{bind}"',
            "    handler: kit",
            "    with:",
            "      name: x",
            "      servers:",
        ]
        lines += [f'        - {{address: "{server}"}}' for server in servers]
    try:
        loads("\n".join(lines), path="f", load_handler=load_handler)
    except ConfigErrors as errors:
        return [str(error) for error in errors.errors]
    return []


def own_address() -> str:
    """Return an address of this machine that is no loopback one, or else one that is."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(sock.getsockname()[0])


@pytest.mark.parametrize(
    ("bind", "server"),
    [
        ("127.0.0.1:7000", "127.0.0.1:7000"),
        ("[::1]:7000", "[0:0::1]:7000"),
        ("127.0.0.1:7000", "[::ffff:127.0.0.1]:7000"),
        ("127.0.0.1:7000", "0.0.0.0:7000"),
        ("0.0.0.0:7000", "127.0.0.1:7000"),
        ("0.0.0.0:7000", "127.8.8.8:7000"),
        ("0.0.0.0:7000", f"{own_address()}:7000"),
        ("[::]:7000", "[::1]:7000"),
        ("unix:/run/gaiod/db.sock", "unix:/run/gaiod/../gaiod//db.sock"),
    ],
)
def test_listener_that_connects_to_itself_is_refused(load_handler: Loader, bind: str, server: str) -> None:
    (problem,) = problems(load_handler, db=(bind, ["192.0.2.1:7000", server]))
    assert problem == (
        f"f:9:21: listeners.db.with.servers[1].address: {server} is this listener itself; write the address of a server"
    )


def test_symbolic_link_to_the_folder_of_a_unix_socket_hides_nothing(load_handler: Loader, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    os.symlink("run", tmp_path / "link")
    assert problems(load_handler, db=(f"unix:{tmp_path}/run/a", [f"unix:{tmp_path}/link/a"]))


@pytest.mark.parametrize(
    ("bind", "server"),
    [
        ("127.0.0.1:7000", "127.0.0.1:7001"),
        ("127.0.0.1:7000", "127.0.0.2:7000"),
        ("127.0.0.1:7000", "[::1]:7000"),
        ("0.0.0.0:7000", "192.0.2.1:7000"),
        ("0.0.0.0:7000", "[::1]:7000"),
        ("[::]:7000", "127.0.0.1:7000"),
        ("127.0.0.1:0", "127.0.0.1:7000"),
        ("127.0.0.1:7000", "localhost:7000"),
        ("systemd:db", "127.0.0.1:7000"),
        ("unix:/run/a", "unix:/run/b"),
        ("127.0.0.1:7000", "a label"),
    ],
)
def test_others_are_not(load_handler: Loader, bind: str, server: str) -> None:
    assert problems(load_handler, db=(bind, [server])) == []


def test_listeners_that_connect_to_each_other_are_refused(load_handler: Loader) -> None:
    found = problems(
        load_handler,
        a=("127.0.0.1:7001", ["127.0.0.1:7002"]),
        b=("127.0.0.1:7002", ["192.0.2.1:7000", "127.0.0.1:7003"]),
        c=("127.0.0.1:7003", ["127.0.0.1:7001"]),
        d=("127.0.0.1:7004", ["127.0.0.1:7001"]),
    )
    assert [problem.partition(": ")[2] for problem in found] == [
        "listeners.a.with.servers[0].address: 127.0.0.1:7002 leads back to this listener (a -> b -> c -> a); "
        "write the address of a server",
        "listeners.b.with.servers[1].address: 127.0.0.1:7003 leads back to this listener (b -> c -> a -> b); "
        "write the address of a server",
        "listeners.c.with.servers[0].address: 127.0.0.1:7001 leads back to this listener (c -> a -> b -> c); "
        "write the address of a server",
    ]


def test_chain_of_listeners_is_fine(load_handler: Loader) -> None:
    assert problems(load_handler, a=("127.0.0.1:7001", ["127.0.0.1:7002"]), b=("127.0.0.1:7002", ["192.0.2.1:1"])) == []
