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

A handler with a `state_version` hands its connections over at a reload. `Leaves` says what its `on_leave` returns. A
script that begins with `Arrives` plays what the handler of the next worker makes of that:

    def test_goes_on_with_what_was_counted() -> None:
        assert_script(Counter(), (Opened(), [Read()]), (Arrived(b"x"), [Read()]), (Leaves(b"1"), []))
        assert_script(Counter(), (Arrives(b"1", version=1), [Read()]), (Arrived(b"x"), [Read()]), (Leaves(b"2"), []))
"""

from gaiod.testing.actions import (
    Abort,
    Action,
    Cancel,
    Close,
    Connect,
    DelayReady,
    Join,
    Leave,
    MakeGroup,
    PauseAccepting,
    Post,
    Publish,
    Read,
    Ready,
    RelayTo,
    Reset,
    Share,
    ShutdownWrite,
    StartTls,
    Timer,
    Write,
)
from gaiod.testing.conn import ScriptedConn, ScriptedGroup
from gaiod.testing.events import (
    Administered,
    Arrived,
    Arrives,
    Cancelled,
    Closed,
    Connected,
    Elapsed,
    Event,
    Expired,
    HungUp,
    Leaves,
    Led,
    Message,
    Opened,
    PeerDone,
    Posted,
    Relayed,
    Secured,
    Sent,
    Shared,
    Started,
    Ticked,
    Timed,
)
from gaiod.testing.script import Step, assert_script

__all__ = [
    "Abort",
    "Action",
    "Administered",
    "Arrived",
    "Arrives",
    "Cancel",
    "Cancelled",
    "Close",
    "Closed",
    "Connect",
    "Connected",
    "DelayReady",
    "Elapsed",
    "Event",
    "Expired",
    "HungUp",
    "Join",
    "Leave",
    "Leaves",
    "Led",
    "MakeGroup",
    "Message",
    "Opened",
    "PauseAccepting",
    "PeerDone",
    "Post",
    "Posted",
    "Publish",
    "Read",
    "Ready",
    "RelayTo",
    "Relayed",
    "Reset",
    "ScriptedConn",
    "ScriptedGroup",
    "Secured",
    "Sent",
    "Share",
    "Shared",
    "ShutdownWrite",
    "StartTls",
    "Started",
    "Step",
    "Ticked",
    "Timed",
    "Timer",
    "Write",
    "assert_script",
]
