"""Sessions that go from one worker to another, as scripts: what is said of them, and who does not take them."""

import json
from typing import Any, cast

import pytest
from gaiod.handlers.proxy import Proxy

from gaiod import Conn, NotTaken
from gaiod.plugins import build_options
from gaiod.testing import Arrives, Connect, Leaves, Opened, ScriptedConn, Started, assert_script

ADDRESS = "127.0.0.1:5432"


def proxy(*servers: str, **values: Any) -> Proxy:
    """Make a handler."""
    return Proxy(build_options(Proxy, {"servers": list(servers), **values}))


def state_of(server: str, half_closed_s: float | None = None) -> bytes:
    """Say what another worker's proxy would of a session."""
    return json.dumps({"server": server, "until_s": 1e9, "half_closed_s": half_closed_s}).encode()


@pytest.mark.parametrize("half_closed_s", [None, 12.5])
def test_session_goes_on_as_it_was(half_closed_s: float | None) -> None:
    state = state_of(ADDRESS, half_closed_s)
    handler, server = proxy(ADDRESS), ScriptedConn()
    conn = assert_script(
        handler,
        (Started(), []),
        (Arrives(state, version=1, partner=server), []),
        (Leaves(state), []),
    )
    (endpoint,) = handler.pool.servers[0].endpoints
    assert endpoint.active == 1
    assert conn.servers == {ADDRESS: {"arrived": 1}}
    assert handler.partner_of(cast(Conn, conn)) is cast(Conn, server)
    assert handler.partner_of(cast(Conn, server)) is cast(Conn, conn)


def test_session_that_arrives_is_closed_when_its_server_goes_down() -> None:
    handler = proxy(ADDRESS, on_down="close", check={})
    assert_script(handler, (Started(), []), (Arrives(state_of(ADDRESS), version=1, partner=ScriptedConn()), []))
    (endpoint,) = handler.pool.servers[0].endpoints
    assert len(endpoint.sessions) == 1


def test_session_is_not_taken_where_its_server_is_gone() -> None:
    handler = proxy("127.0.0.1:5433")
    with pytest.raises(NotTaken, match=ADDRESS):
        assert_script(handler, (Started(), []), (Arrives(state_of(ADDRESS), version=1, partner=ScriptedConn()), []))
    (endpoint,) = handler.pool.servers[0].endpoints
    assert endpoint.active == 0


def test_session_is_not_taken_without_the_connection_to_its_server() -> None:
    with pytest.raises(NotTaken):
        assert_script(proxy(ADDRESS), (Started(), []), (Arrives(state_of(ADDRESS), version=1), []))


def test_client_that_is_being_connected_does_not_leave() -> None:
    handler = proxy("unix:/run/db.sock")
    conn = assert_script(handler, (Started(), []), (Opened(), [Connect("/run/db.sock")]), (Leaves(None), []))
    conn.busy = False
    assert handler.on_leave(cast(Conn, conn)) is None
