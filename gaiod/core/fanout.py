"""The fan-out: what a pass does for groups.

A round deals what was published on a topic out to all of its members, a share of them in each pass; what is
published meanwhile is for the next round, so the more there is, the more goes in one send. Rounds begin at another
member each time: nobody is always last.
"""

import errno
import os
from collections import deque

from gaiod.core.connection import Conn
from gaiod.core.counters import DROPPED_MEMORY, FANOUT, FANOUT_BOUNDS_S, FANOUT_NS, PUBLISHED
from gaiod.core.engine import Fan, Parcel
from gaiod.core.group import SLOW_CONSUMER, Group, Topic
from gaiod.core.outboxes import DISCONNECT, DROP_OLDEST, LATEST_ONLY
from gaiod.core.pending import Operations

EAGAIN, EINTR = errno.EAGAIN, errno.EINTR

GIVEN_UP = {
    errno.ETIMEDOUT: "user_timeout",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
}
"""What the kernel says of a member that it has given up. Other errors of a send are resets."""

TURNS_MAX = 512
"""Most outboxes that one pass gives a turn in rounds, and as many that wait: what it may delay the next poll by."""

GOLDEN_RATIO = 0.618034
"""How far on the next round begins, in rounds: so the places of the last ones fill all of it evenly."""

SHED_TO = 0.9
"""Of the limit on memory, what is left when it was reached: not every message must lead to a search."""


class Fanout:
    """What a pass does for the groups of a watcher.

    It is given the operations with each call, and holds no reference to them: the loop holds it, and a circle would
    keep a watcher alive.

    Attributes:
        fan: the turns of one stretch of members, reset for each.
        rounds: topics on which something was published, the one that is being dealt out first.
        has_rounds: whether there are any: the loop asks in every pass.
    """

    def __init__(self) -> None:
        self.fan = Fan()
        self.rounds: deque[Topic] = deque()
        self.has_rounds = False

    def publish(self, operations: Operations, group: Group, name: str, message: bytes) -> int:
        """Have a message dealt out, and return to how many."""
        group.spool.add(PUBLISHED, 1)
        topic = group.topic_table.get(name)
        if topic is None or not topic.places:
            return 0
        if not topic.fresh:
            topic.fresh_s = operations.poller.now()
        parcel = Parcel(message, topic.number, len(topic.members))
        group.serial += 1
        parcel.serial = group.serial
        parcel.position = group.position
        topic.fresh.append(parcel)
        group.fresh_bytes += len(message)
        if not topic.is_due:
            topic.is_due = True
            self.rounds.append(topic)
            self.has_rounds = True
        return len(topic.places)

    def end_stalled(self, operations: Operations, group: Group, since_s: float) -> int:
        """Close the members for whom something waits and who have taken nothing since then; return how many.

        Not those that are detached: nobody sends to them.
        """
        stalled = [conn for conn in group.behind if conn.outbox.progress_s <= since_s and conn.unit is None]
        for conn in stalled:
            self._disconnect(operations, conn)
        return len(stalled)

    def deal(self, operations: Operations) -> None:
        """Send what waits, and deal out what was published, as far as one pass goes."""
        if operations.flushes:
            self._flush(operations)
        turns_left = TURNS_MAX
        while self.rounds and turns_left > 0:
            topic = self.rounds[0]
            if topic.left == 0:
                self._begin_round(topic)
            turns_left -= self._deal_round(operations, topic, turns_left)
            if topic.left == 0:
                self.rounds.popleft()
                self._end_round(operations, topic)
        self.has_rounds = len(self.rounds) > 0

    def _begin_round(self, topic: Topic) -> None:
        topic.round = topic.fresh
        topic.fresh = []
        topic.began_s = topic.fresh_s
        topic.round_length = len(topic.members)
        topic.start = int(topic.start + topic.round_length * GOLDEN_RATIO) % max(1, topic.round_length)
        topic.left = topic.round_length

    def _deal_round(self, operations: Operations, topic: Topic, turns_max: int) -> int:
        """Give the next members of a round their turns, and return how many places were seen to."""
        fan = self.fan
        fan.reset()
        chosen: list[Conn] = []
        seen = min(turns_max, topic.left)
        place = topic.start + topic.round_length - topic.left
        topic.left -= seen
        for _ in range(seen):
            if place >= topic.round_length:
                place -= topic.round_length
            conn = topic.members[place]
            if conn is not None:
                chosen.append(conn)
                fan.add(conn.outbox, conn.fd, operations._allowance(conn), place)
            place += 1
        fan.deal(topic.round, operations.now_s)
        self._settle(operations, chosen)
        if topic.group.spool.held_bytes > topic.group.memory_limit:
            self._shed(operations, topic.group)
        return seen

    def _end_round(self, operations: Operations, topic: Topic) -> None:
        """Count how long it took, and see whether there is another one."""
        group = topic.group
        for parcel in topic.round:
            group.fresh_bytes -= len(parcel.data)
        topic.round = []
        took_s = operations.poller.now() - topic.began_s
        bucket = 0
        for bound_s in FANOUT_BOUNDS_S:
            if took_s <= bound_s:
                break
            bucket += 1
        group.spool.add(FANOUT + bucket, 1)
        group.spool.add(FANOUT_NS, int(took_s * 1e9))
        topic.close_holes()
        if topic.fresh:
            self.rounds.append(topic)
        else:
            topic.is_due = False
            group.look_after(topic)

    def _flush(self, operations: Operations) -> None:
        """Let those who take bytes again have what waits for them."""
        flushes = operations.flushes[:TURNS_MAX]
        del operations.flushes[:TURNS_MAX]
        fan = self.fan
        fan.reset()
        chosen: list[Conn] = []
        for conn in flushes:
            outbox = conn.outbox
            if outbox is not None:  # it has not closed meanwhile
                outbox.is_flushing = False
                chosen.append(conn)
                fan.add(outbox, conn.fd, operations._allowance(conn), 0)
        fan.deal([], operations.now_s)
        self._settle(operations, chosen)

    def _settle(self, operations: Operations, conns: list[Conn]) -> None:
        """Take the outcome of the turns."""
        for conn in conns:
            outbox = conn.outbox
            sent = outbox.sent
            if sent:
                conn.bytes_sent += sent
                conn.active_s = operations.now_s
                operations.counters[conn.traffic + 1] += sent
            conn.pending_write_bytes += outbox.waiting_bytes - outbox.waiting_before
            if outbox.error == EAGAIN:
                operations._stall(conn)
            elif outbox.error and outbox.error != EINTR:
                conn.close_reason = conn.close_reason or GIVEN_UP.get(outbox.error, "peer_reset")
                operations._drop(conn, OSError(outbox.error, os.strerror(outbox.error)))
                continue
            if conn.secure is not None:
                operations._flush_later(conn)  # what is encrypted, and the kernel did not take
            if outbox.is_over:
                self._disconnect(operations, conn)
                continue
            if outbox.count:
                if not outbox.is_behind:
                    outbox.is_behind = True
                    group = outbox.group
                    group.behind.add(conn)
                operations._schedule_write(conn)
            elif outbox.is_behind:
                self._caught_up(operations, conn)

    def _caught_up(self, operations: Operations, conn: Conn) -> None:
        """Nothing waits for a connection any more."""
        outbox = conn.outbox
        group = outbox.group
        outbox.is_behind = False
        group.behind.discard(conn)
        if not outbox.topics:
            conn.outbox = None
        operations._schedule_write(conn)

    def _disconnect(self, operations: Operations, conn: Conn) -> None:
        """Close a connection that does not take what is published."""
        conn.close_reason = conn.close_reason or SLOW_CONSUMER
        operations._drop(conn, None)

    def _shed(self, operations: Operations, group: Group) -> None:
        """Forget messages until there is memory again: those who are furthest behind lose theirs first.

        Whoever is promised what would be forgotten is disconnected instead: with DISCONNECT everything, with
        LATEST_ONLY what waits. With DROP_OLDEST the newest message is kept. If all that is left cannot be dropped,
        being begun or the newest, they are disconnected, too.
        """
        enough = int(group.memory_limit * SHED_TO)
        policy = group.spool.policy
        slowest = sorted(group.behind, key=_waiting, reverse=True)
        for conn in slowest:
            if group.spool.held_bytes <= enough:
                return
            outbox = conn.outbox
            conn.pending_write_bytes -= outbox.shed(DROPPED_MEMORY, policy == DROP_OLDEST)
            if policy == DISCONNECT or policy == LATEST_ONLY:
                self._disconnect(operations, conn)
            elif outbox.count == 0:
                self._caught_up(operations, conn)
        for conn in slowest:
            if group.spool.held_bytes <= group.memory_limit:
                return
            if not conn.closed:
                self._disconnect(operations, conn)


def _waiting(conn: Conn) -> int:
    waiting: int = conn.outbox.waiting_bytes
    return waiting
