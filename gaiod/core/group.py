"""Groups: connections that get what is published, each through a bounded queue of its own.

A topic is a list of members. One that goes leaves a hole, so that a place in the list tells who came before
whom: a message is for the members whose place is below the length of the list when it was published.
"""

from typing import Any

from gaiod.core.connection import Conn, Submitter
from gaiod.core.counters import DROPPED_CLOSED, DROPPED_DISCONNECT, SUBSCRIBERS
from gaiod.core.engine import Fan, Outbox, Parcel, Spool
from gaiod.core.outboxes import DISCONNECT, DROP_NEWEST, DROP_OLDEST, LATEST_ONLY, NOTHING

POLICIES = {
    "disconnect": DISCONNECT,
    "drop_oldest": DROP_OLDEST,
    "drop_newest": DROP_NEWEST,
    "latest_only": LATEST_ONLY,
}
"""What may be done about a member for whom a message does not fit, by name."""

LIMIT = 1 << 20
MEMORY_LIMIT = 256 << 20

LIMIT_MIN_BYTES = 64
"""Of a queue: it has to hold eight references."""

SLOW_CONSUMER = "slow_consumer"
"""Why a member was closed that did not take what was published."""

HOLES_MIN = 64
"""Holes that a topic may have before it is laid out anew, however few members it has."""


class Topic:
    """What some members of a group get.

    Attributes:
        members: in the order they came; None: one that went.
        places: where each is.
        fresh: published, and not yet being dealt out.
        round: being dealt out.
        start, left: at whose place the round began, and how many places it still has to see to.
        began_s: when the oldest message of `fresh` was published; then, of the round.
        is_due: it is among the rounds of the watcher.
    """

    __slots__ = (
        "alone", "began_s", "fresh", "fresh_s", "group", "is_due", "left", "members", "name", "number", "places",
        "round", "round_length", "start",
    )  # fmt: skip

    def __init__(self, group: "Group", name: str, number: int) -> None:
        self.group = group
        self.name = name
        self.number = number
        self.members: list[Conn | None] = []
        self.places: dict[Conn, int] = {}
        self.alone: tuple[Topic, ...] = (self,)  # the topics of a member that has no other: most have the same tuple
        self.fresh: list[Parcel] = []
        self.fresh_s = 0.0
        self.round: list[Parcel] = []
        self.round_length = 0
        self.began_s = 0.0
        self.start = 0
        self.left = 0
        self.is_due = False

    def take_in(self, conn: Conn) -> None:
        """Add a member behind the others."""
        self.places[conn] = len(self.members)
        self.members.append(conn)

    def let_go(self, conn: Conn) -> None:
        """Leave a hole in a member's place."""
        self.members[self.places.pop(conn)] = None
        if not self.is_due:
            self.close_holes()

    def close_holes(self) -> None:
        """Lay the members out anew if there are many holes, and no round is under way."""
        if len(self.members) - len(self.places) < max(HOLES_MIN, len(self.places)):
            return
        before = self.members
        self.members = []
        living = []  # how many there are before each place
        for conn in before:
            living.append(len(self.members))
            if conn is not None:
                self.places[conn] = len(self.members)
                self.members.append(conn)
        living.append(len(self.members))
        for parcel in self.fresh:
            parcel.audience = living[parcel.audience]
        self.start = 0


class Group:
    """Connections that get what is published, each through a bounded queue of its own.

    A message exists once, however many it is for. The next pass of the loop sends it to all members that take
    it at once, in one stretch; the others have it wait in their queues, as a reference. Messages go whole: a
    write of the connection's own goes between two of them. Those of a topic arrive in the order they were published
    in; those of different topics may overtake each other.

    Made by `Watcher.group()`. To be used in the thread that calls `wait_io()`, and between its calls: others
    `post()`. It keeps its members open as long as it is kept.

    Attributes:
        position: which message of a feed is being published; 0: none of one. Set by whoever takes the feed: messages
            that two processes have both got are known by it, where a member goes from one to the other.
    """

    __slots__ = (
        "__weakref__", "behind", "fresh_bytes", "memory_limit", "next_number", "position", "serial", "size", "spool",
        "topic_table", "watcher",
    )  # fmt: skip

    def __init__(self, watcher: Submitter, spool: Spool, memory_limit: int) -> None:
        self.watcher = watcher
        self.spool = spool
        self.memory_limit = memory_limit
        self.topic_table: dict[str, Topic] = {}
        self.next_number = 0
        self.size = 0
        self.fresh_bytes = 0
        self.position = 0
        self.serial = 0  # of the last message that was published
        self.behind: set[Conn] = set()  # those for whom something waits

    def add(self, conn: Conn, topic: str = "") -> None:
        """Let a connection have what is published on a topic from now on; again: nothing happens.

        Raises:
            UsageError: it is in another group, or the sink of a relay. Others as `Conn.write`.
        """
        self.watcher._join(self, conn, topic)

    def remove(self, conn: Conn, topic: str | None = None) -> None:
        """Let it have no more of a topic, or of any. What was published before is still sent."""
        self.watcher._part(self, conn, topic)

    def publish(self, data: Any, topic: str = "") -> int:
        """Let every member of a topic have a message, and return how many that are.

        Args:
            data: a buffer. If it is not `bytes`, it is copied.
            topic: whose.

        Raises:
            ValueError: it is longer than the `limit` of a queue.
            TooManyOperations: as much as `memory_limit` was published since the loop's last pass.
            EmptyBuffer, WatcherClosed, UsageError (not between calls of `wait_io()` in its thread), TypeError (no
            buffer): nothing was published.
        """
        return self.watcher._publish(self, topic, data)

    def disconnect_stalled(self, grace_s: float) -> int:
        """Close members for whom something waits, and who have taken nothing for that long; return how many."""
        return self.watcher._disconnect_stalled(self, grace_s)

    def members(self, topic: str = "") -> int:
        """Return how many connections have a topic."""
        found = self.topic_table.get(topic)
        return 0 if found is None else len(found.places)

    @property
    def topics(self) -> list[str]:
        """The topics that anybody has."""
        return self.list_topics()

    @property
    def waiting_bytes(self) -> int:
        """Of messages that wait in queues, counted once for each member; those not dealt out yet not included."""
        return self.spool.queued_bytes

    @property
    def held_bytes(self) -> int:
        """Memory of the messages that wait in queues, each counted once."""
        return self.spool.held_bytes

    @property
    def pending_bytes(self) -> int:
        """Of messages that were published and not dealt out yet: what publishes too fast should wait for this."""
        return self.fresh_bytes

    def topics_of(self, conn: Conn) -> list[str]:
        """Return the topics that a connection has; none if it is in another group, or in none."""
        return self.list_topics_of(conn)

    def __len__(self) -> int:
        """How many connections are in it."""
        return self.size

    def list_topics(self) -> list[str]:
        """As `topics`: types are given to methods only."""
        names = []
        for name, topic in self.topic_table.items():
            if topic.places:
                names.append(name)
        return names

    def list_topics_of(self, conn: Conn) -> list[str]:
        """As `topics_of`."""
        outbox = conn.outbox
        if outbox is None or outbox.group is not self:
            return []
        return [topic.name for topic in outbox.topics]

    # -- for the loop --------------------------------------------------------------------------------

    def join(self, conn: Conn, name: str) -> None:
        """As `add`, of a connection that may."""
        outbox = conn.outbox
        if outbox is None:
            outbox = conn.outbox = Outbox(self, self.spool)
            outbox.session = conn.secure
        topic = self.topic_table.get(name)
        if topic is None:
            topic = self.topic_table[name] = Topic(self, name, self.next_number)
            self.next_number += 1
        elif conn in topic.places:
            return
        if not outbox.topics:
            self.size += 1
            self.spool.add(SUBSCRIBERS, 1)
            outbox.topics = topic.alone
        else:
            outbox.topics = (*outbox.topics, topic)
        topic.take_in(conn)

    def part(self, conn: Conn, name: str | None) -> None:
        """As `remove`, of a connection that is in it."""
        outbox = conn.outbox
        assert outbox is not None
        if not outbox.topics:
            return
        kept = []
        for topic in outbox.topics:
            if name is None or topic.name == name:
                if topic.is_due:
                    self.catch_up(conn, topic)
                topic.let_go(conn)
                self.look_after(topic)
            else:
                kept.append(topic)
        outbox.topics = tuple(kept)
        if not kept:
            self.size -= 1
            self.spool.add(SUBSCRIBERS, -1)
            if outbox.count == 0:
                conn.outbox = None

    def catch_up(self, conn: Conn, topic: Topic) -> None:
        """Queue for a member that leaves what was published before, and not dealt out to it yet."""
        outbox = conn.outbox
        place = topic.places[conn]
        missed = self.not_dealt(place, topic)
        if not missed:
            return
        fan = Fan()
        fan.reset()
        fan.add(outbox, conn.fd, NOTHING, place)
        fan.deal(missed, topic.fresh_s if topic.fresh else topic.began_s)
        conn.pending_write_bytes += outbox.waiting_bytes - outbox.waiting_before
        if outbox.count and not outbox.is_behind:
            outbox.is_behind = True
            self.behind.add(conn)

    def not_dealt(self, place: int, topic: Topic) -> list[Parcel]:
        """Return what was published before and not dealt out yet to whoever has a place in a topic."""
        if place < topic.round_length and topic.left > 0:
            turn = place - topic.start
            if turn < 0:
                turn += topic.round_length
            if turn >= topic.round_length - topic.left:
                return topic.round + topic.fresh
        return topic.fresh

    def messages_for(self, conn: Conn, after: int, until: int) -> list[tuple[str, bytes]]:
        """Return what waits for a member, dealt out or not: (topic, message) each, a begun one whole.

        Args:
            conn: which member.
            after: the serial number that they have to be above.
            until: the position that those of the feed may have.
        """
        outbox = conn.outbox
        waiting = outbox.parcels()
        for topic in outbox.topics:
            if topic.is_due:
                place = topic.places[conn]
                for parcel in self.not_dealt(place, topic):
                    if parcel.audience > place:
                        waiting.append(parcel)
        names = {}
        for name, topic in self.topic_table.items():
            names[topic.number] = name
        found = []
        for parcel in waiting:
            if parcel.serial > after and parcel.position <= until:
                found.append((names.get(parcel.topic, ""), parcel.data))
        return found

    def number_of(self, name: str) -> int:
        """Return the number of a topic; -1: nobody has it, as of one that a member has left."""
        topic = self.topic_table.get(name)
        return -1 if topic is None else topic.number

    def leave(self, conn: Conn, lost_as: int) -> int:
        """Forget a connection that closes, and return how many bytes waited for it.

        Args:
            conn: which member.
            lost_as: what each message counts as that waited for it.
        """
        outbox = conn.outbox
        assert outbox is not None
        self.part(conn, None)
        if lost_as == DROPPED_CLOSED and conn.close_reason == SLOW_CONSUMER:
            lost_as = DROPPED_DISCONNECT
        lost: int = outbox.clear(lost_as)
        self.behind.discard(conn)
        conn.outbox = None
        return lost

    def look_after(self, topic: Topic) -> None:
        """Forget a topic that nobody has, and for which nothing is to be done."""
        if not topic.places and not topic.is_due and self.topic_table.get(topic.name) is topic:
            del self.topic_table[topic.name]
            topic.alone = ()  # it holds the topic: what comes and goes is not left to the garbage collector
