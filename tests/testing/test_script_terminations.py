"""Scripts of handlers that say why a connection ends, and are told."""

from gaiod import Conn, Handler, OpResult, Termination
from gaiod.testing import Arrived, Close, Closed, Opened, Read, assert_script


class Limits(Handler):
    """Lets a connection ask once, and says so; notes why it ended."""

    told: tuple[str, ...] = ()

    def on_open(self, conn: Conn) -> None:
        conn.read()

    def on_read(self, conn: Conn, result: OpResult) -> None:
        conn.close_reason = Termination("quota", who="client", how="limit", cause="requests_max")
        conn.close()

    def on_close(self, conn: Conn, reason: str) -> None:
        assert isinstance(reason, Termination)
        self.told = (reason, reason.who, reason.how, reason.cause, reason.phase)

    def phase_of(self, conn: Conn) -> str:
        return "request"


def test_script_may_look_at_the_termination_that_a_handler_says_and_tells_one() -> None:
    handler = Limits()
    conn = assert_script(handler, (Opened(), [Read()]), (Arrived(b"x"), [Close()]))
    assert isinstance(conn.close_reason, Termination)
    assert (conn.close_reason, conn.close_reason.who, conn.close_reason.cause) == ("quota", "client", "requests_max")
    assert_script(handler, (Closed("idle"), []))
    assert handler.told == ("idle", "gaiod", "timeout", "idle_timeout", "request")
    assert_script(handler, (Closed(conn.close_reason), []))
    assert handler.told == ("quota", "client", "limit", "requests_max", "request")
