"""Test a handler without sockets: a script of what happens, and what the handler must then do.

    def test_reads_again_only_after_the_write_completes() -> None:
        assert_script(
            Echo(),
            (Opened(), [Read()]),
            (Arrived(b"ping"), [Write(b"ping")]),
            (Sent(), [Read()]),
            (PeerDone(), [Close()]),
        )

Each step is one event on one connection, and the list of everything the handler asked of it.
"""

from gaiod.testing.actions import (
    Abort,
    Action,
    Cancel,
    Close,
    Connect,
    Join,
    Leave,
    MakeGroup,
    PauseAccepting,
    Post,
    Publish,
    Read,
    RelayTo,
    Reset,
    ShutdownWrite,
    Timer,
    Write,
)
from gaiod.testing.conn import ScriptedConn, ScriptedGroup
from gaiod.testing.events import (
    Arrived,
    Cancelled,
    Closed,
    Connected,
    Event,
    Expired,
    HungUp,
    Message,
    Opened,
    PeerDone,
    Posted,
    Relayed,
    Sent,
    Started,
    Ticked,
    Timed,
)
from gaiod.testing.script import Step, assert_script

__all__ = [
    "Abort",
    "Action",
    "Arrived",
    "Cancel",
    "Cancelled",
    "Close",
    "Closed",
    "Connect",
    "Connected",
    "Event",
    "Expired",
    "HungUp",
    "Join",
    "Leave",
    "MakeGroup",
    "Message",
    "Opened",
    "PauseAccepting",
    "PeerDone",
    "Post",
    "Posted",
    "Publish",
    "Read",
    "RelayTo",
    "Relayed",
    "Reset",
    "ScriptedConn",
    "ScriptedGroup",
    "Sent",
    "ShutdownWrite",
    "Started",
    "Step",
    "Ticked",
    "Timed",
    "Timer",
    "Write",
    "assert_script",
]
