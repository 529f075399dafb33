"""The contract holds for plain connections and for those that speak TLS: each of its tests runs over both."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from core.support.sockets import NewPair, connected_pair
from core.support.tls import LAYERS, TlsWatcher, tls_socket, use_layer
from core.support.waiting import LIMIT_S
from gaiod.core.watcher import Watcher

PLAIN_ONLY = frozenset({
    # They look at a socket before TLS begins, or let an operation delegate it.
    "test_call_on_a_closed_watcher_raises_and_leaves_the_socket_alone",
    "test_delegate_raises_and_leaves_the_socket_as_it_was_when_no_descriptor_is_left",
    "test_an_operation_delegates_a_socket_on_first_use_and_finds_it_on_the_next",
    "test_connection_is_kept_by_the_socket_that_it_was_made_from_on_first_use",
    "test_free_of_a_socket_that_was_never_delegated_is_a_no_op",
    "test_close_completes_operations_of_every_kind_once",
    # Nobody must refer to the watcher, and the pair does, to have its handshake.
    "test_watcher_that_nobody_references_closes_everything",
    # A kernel that takes nothing keeps records here which are sent in any case: at most 64 KiB.
    "test_connection_with_a_pending_operation_is_not_collected",
    "test_room_that_is_there_beats_a_deadline_that_is_past",
    # Its deadline is in the past before 20 MB are encrypted.
    *(f"test_write_tells_how_much_the_kernel_took_when_it_is_ended[tls_pair_{layer}-deadline]" for layer in LAYERS),
})  # fmt: skip
"""Tests that cannot be over TLS as they are. `test_sessions.py` has what is different then."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave them out."""
    left_out = [item for item in items if "tls_pair" in item.name and {item.name, _function(item)} & PLAIN_ONLY]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _function(item: pytest.Item) -> str:
    return item.name.partition("[")[0]


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    """A watcher, closed at the end."""
    with TlsWatcher() as watcher:
        yield watcher


@pytest.fixture(autouse=True)
def watchers_of_a_test_speak_tls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the watchers that a test makes itself begin TLS where its sockets are for that."""
    if hasattr(request.module, "Watcher"):
        monkeypatch.setattr(request.module, "Watcher", TlsWatcher)


@pytest.fixture
def tls_pair(watcher: TlsWatcher) -> Iterator[NewPair]:
    """As `tcp_pair`: the first speaks TLS once it is delegated."""
    made: list[Any] = []

    def new_pair() -> Any:
        near, far = tls_socket(*connected_pair(socket.AF_INET))
        near.watcher = watcher
        far.settimeout(LIMIT_S)
        made.extend((near, far.sock))
        return near, far

    try:
        yield new_pair
    finally:
        for end in made:
            end.close()


@pytest.fixture(params=["tcp_pair", "tcp6_pair", "unix_pair", *(f"tls_pair_{layer}" for layer in LAYERS)])
def stream_pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> NewPair:
    """A maker of connected sockets, for TCP over IPv4, over IPv6, for unix, and for TLS."""
    name, _, layer = request.param.partition("_pair_")
    if layer:
        use_layer(layer, monkeypatch)
    new_pair: NewPair = request.getfixturevalue(f"{name}_pair" if layer else name)
    return new_pair
