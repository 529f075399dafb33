"""Faults that the watcher once had, or might get: each is put in, and the simulation must find it.

A mutation replaces a piece of one method's source. Where the piece is not there any more, the method was written anew,
and so has the mutation to be.
"""

import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gaiod.core import fanout, flows, handover, loop, outboxes, pending, pollers, relays, syscalls, timers, watcher


@dataclass(frozen=True)
class Mutation:
    """What one method becomes.

    Attributes:
        fault: what is wrong then.
        owner, method: where.
        was, becomes: the piece of its source, and what stands there instead.
    """

    fault: str
    owner: type
    method: str
    was: str
    becomes: str


@contextmanager
def mutated(mutation: Mutation) -> Iterator[None]:
    """Put a fault in, and the method back."""
    before = getattr(mutation.owner, mutation.method)
    lines, first = inspect.getsourcelines(before)
    source = textwrap.dedent("".join(lines))
    assert source.count(mutation.was) == 1, f"{mutation.method} has no longer one {mutation.was!r}"
    source = "\n" * (first - 1) + source.replace(mutation.was, mutation.becomes)
    made: dict[str, object] = {}
    exec(compile(source, before.__code__.co_filename, "exec"), sys.modules[before.__module__].__dict__, made)
    setattr(mutation.owner, mutation.method, made[mutation.method])
    try:
        yield
    finally:
        setattr(mutation.owner, mutation.method, before)


MENDED = (
    Mutation(
        "an edge that the loop takes before the owner is known is lost", pollers._Poller, "add",
        "    self._owners[fd] = ref(owner)", "    self._register(fd)\n    self._owners[fd] = ref(owner)\n    return",
    ),
    Mutation(
        "a read behind a relay that ends before its time is not served", pending.Operations, "_take_out",
        "self._schedule_read(conn)", "pass",
    ),
    Mutation(
        "a relay whose sink's writes are cancelled does not go on", pending.Operations, "_take_out",
        "self._schedule_write(conn)", "if conn.write_head is not None:\n            self._schedule_write(conn)",
    ),
    Mutation(
        "a forked child takes its parent's connections out of the epoll that they share", pollers._Poller, "remove",
        " and self._forks == _Process.forks", "",
    ),
    Mutation(
        "delegate() finds the watcher closed underneath", watcher.Watcher, "_adopt_socket",
        "if self.closed:  # by another", "if False:  # by another",
    ),
    Mutation(
        "a relay ends though the sink that was freed is another's", pending.Operations, "_end_relays_to",
        "flow is not None and flow.sink is sink", "flow is not None",
    ),
    Mutation(
        "an operation overtakes those that wait in the inbox", watcher.Watcher, "_submit",
        "if self.has_mail:", "if False:",
    ),
    Mutation(
        "a cancel or close overtakes those that wait in the inbox", watcher.Watcher, "_request",
        "if self.has_mail:", "if False:",
    ),
    Mutation(
        "a connection that another thread drops is released twice", pending.Operations, "_drop",
        "if conn.closed:", "if False:",
    ),
    Mutation(
        "an accept that fails keeps a connection alive", loop.Loop, "_accept_ready",
        "failure.with_traceback(None)", "failure",
    ),
    Mutation(
        "a close behind a connect that fails is not done", pending.Operations, "_take_out",
        "        self._schedule_write(conn)", "        conn.failure is error or self._schedule_write(conn)",
    ),
    Mutation(
        "a peer that is gone is not told of when a read ends otherwise", pending.Operations, "_pop_read",
        "self._look_for_hangup(conn)", "pass",
    ),
)  # fmt: skip
"""What the watcher once did."""

IMAGINED = (
    Mutation(
        "bytes that are there are received only after the next edge", loop.Loop, "_received",
        "if received < batch.wanted(i) and not conn.broken:", "if True:",
    ),
    Mutation(
        "a short read after a hang-up is taken for the last", loop.Loop, "_received",
        "if received < batch.wanted(i) and not conn.broken:", "if received < batch.wanted(i):",
    ),
    Mutation("an empty socket is asked again and again", loop.Loop, "_received",
             "elif received == -EAGAIN:\n        conn.readable = False", "elif received == -EAGAIN:\n        pass"),
    Mutation("a write that was interrupted fails", loop.Loop, "_sent", "elif sent != -EINTR:", "else:"),
    Mutation("the deadline behind the first is not looked at", loop.Loop, "_expire", "if next_s != inf:", "if False:"),
    Mutation("a listener at EMFILE does not rest", loop.Loop, "_accept_ready",
             "self._pause_accepting(listener)", "pass"),
    Mutation("a listener that rests is not woken", loop.Loop, "_expire", "self._resume_listeners()", "pass"),
    Mutation("a relay's end sends no FIN, and keeps its place", pending.Operations, "_unlink",
             "sink.relay_source = None", "pass"),
    Mutation("what a relay holds at its end is lost", pending.Operations, "_unlink",
             "self._write_leftover(sink, flow.copy_leftover())", "pass"),
    Mutation("a relay sends between a write's two halves", relays.Relays, "move_ready",
             "if sink.writable and sink.write_head is None:", "if sink.writable:"),
    Mutation("a relay forgets what its sink did not take", flows.Flow, "_send_copy",
             "self._data[sent:] if self.left", "self._data[sent + 1 :] if self.left"),
    Mutation("a write's own bytes come within a message", pending.Operations, "_schedule_write",
             "if outbox.offset or operation is None or (operation.kind > POST and operation.kind != FLUSH):",
             "if operation is None or operation.kind > POST:"),
    Mutation("a message that was begun is dropped", outboxes.Outbox, "_keep_limit",
             "begun = int(self.offset > 0)", "begun = 0"),
    Mutation("who has caught up has no writes sent", fanout.Fanout, "_caught_up",
             "operations._schedule_write(conn)", "pass"),
    Mutation("members who came after a message get it", outboxes.Outbox, "turn",
             "batch[first].audience <= self._index", "False"),
    Mutation("an alarm that was moved forward is lost", timers.Timers, "arm",
             "if deadline_s >= (conn", "if (conn.read_timer if reading else conn.write_timer) or deadline_s >= (conn"),
    Mutation("a submission from elsewhere does not wake the loop", watcher.Watcher, "_hand_over",
             "if self.sleeping:", "if False:"),
    Mutation("a released descriptor is still watched", pending.Operations, "_release",
             "self.poller.remove(fd)", "pass"),
    Mutation("a released descriptor stays open", pending.Operations, "_give_up", "os.close(fd)", "pass"),
    Mutation("accepted connections are left open when they cannot be watched", loop.Loop, "_accept_ready",
             "os.close(fd)", "pass"),
    Mutation("close() does not wait for writes", loop.Loop, "_clear_way",
             "if operation is None or operation.kind == WRITE:", "if operation is None:"),
    Mutation("a cancelled timer rings", pending.Operations, "_cancel_timer", "operation.pending", "False"),
    Mutation("what is asked of a detached connection overtakes what was asked before", pending.Operations, "_start",
             "if conn.unit.requests:", "if False:"),
    Mutation("a detached connection has its turn", handover.Unit, "take_out", "if conn.reading:", "if False:"),
    Mutation("the poller wakes for a detached connection", handover.Unit, "take_out",
             "operations.poller.remove(conn.fd)", "pass"),
    Mutation("deadlines end with a detachment", handover.Unit, "_rouse", "if next_s != inf:", "if False:"),
    Mutation("views outlive the next wait", syscalls.Batch, "recycle", "view.release()", "pass"),
)  # fmt: skip
"""What it might do. Each stands for a rule of the model's that would else have no test."""
