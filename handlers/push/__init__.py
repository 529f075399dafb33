"""push: every subscriber gets what is published, at memory bounds that hold whatever it does."""

import json
import time
from collections.abc import Iterable, Sequence
from math import inf

from gaiod import Arrival, Conn, Group, Handler, NotTaken, OpResult, Source, Termination

from .framing import frame
from .half_closed import HalfClosed
from .last_values import LastValues
from .options import GRACE_DEFAULT_S, PushOptions
from .subscription import Subscription, SubscriptionError

LEFT = Termination("peer_eof", "client", "fin", "half_closed_timeout")
LEFT_EARLY = Termination("peer_eof", "client", "fin", "subscription")
REFUSED = Termination("handler", "client", "error", "subscription")

LATEST_NOTSENT_LOWAT_BYTES = 16 << 10
"""What the kernel takes ahead of what it has sent where only the latest counts: none of that can be replaced any more,
and without a limit it is MiB of messages that are long out of date. Less would be a wake-up for every few packets."""


class Push(Handler):
    """Puts each connection into the group of its topics; what comes from the sources goes to the group.

    What a client sends beyond its subscription is read, so that its end is noticed, and ignored. Its FIN does not tell
    whether it has gone or only says no more: it goes on receiving for `half_closed_timeout`, and then its subscription
    ends.
    """

    Options = PushOptions
    state_version = 1
    subscribers: Group
    """From `on_start` on."""

    def __init__(self, options: PushOptions) -> None:
        super().__init__(options)
        self._last = LastValues(options.memory_limit if options.last_value else 0)
        self._half_closed = HalfClosed(options.half_closed_timeout)

    @classmethod
    def sources_of(cls, options: PushOptions) -> Sequence[Source]:
        from .sources import source_of  # late: the sources run in the feeder, and no worker needs h11 and redis-py

        return tuple(source_of(feed, options, cls.encode_message) for feed in options.feeds)

    @classmethod
    def encode_message(cls, options: PushOptions, topic: str, data: bytes) -> bytes:
        options.offered.check(topic)
        message = frame(options.framing, data)
        if len(message) > options.message_max_bytes:
            raise ValueError(
                f"has {len(message)} bytes with its frame; at most {options.message_max_bytes} are possible"
            )
        return message

    @classmethod
    def wants_last(cls, options: PushOptions) -> bool:
        return options.last_value

    @classmethod
    def notsent_lowat_of(cls, options: PushOptions) -> int | None:
        return LATEST_NOTSENT_LOWAT_BYTES if options.slow_consumer.policy == "latest_only" else None

    # -- hooks -----------------------------------------------------------------------------------------

    def on_start(self) -> None:
        slow = self.options.slow_consumer
        self.subscribers = self.group(
            limit=slow.limit,
            policy=slow.policy,
            grace_s=slow.grace or GRACE_DEFAULT_S,  # the other policies have none
            memory_limit=self.options.memory_limit,
        )

    def on_open(self, conn: Conn) -> None:
        if self.options.subscribe is False:
            self._join(conn, (self.options.topic,))
            conn.read()
        else:
            conn.data = Subscription(self.options.subscribe, time.monotonic())
            conn.read(deadline=conn.data.deadline_s)

    def on_read(self, conn: Conn, result: OpResult) -> None:
        asked = conn.data
        if asked is None:
            conn.read()
            return
        try:
            topics = asked.feed(bytes(result.buffer))
        except SubscriptionError as error:
            self._refuse(conn, error)
        else:
            if topics:
                conn.data = None
                self._join(conn, topics)
        conn.read(deadline=None if conn.data is None else asked.deadline_s)

    def on_write(self, conn: Conn, result: OpResult) -> None:
        pass

    def on_eof(self, conn: Conn) -> None:
        asked = conn.data
        if asked is None:
            now_s = time.monotonic()
            self._half_closed.add(conn, now_s)
            self._await_half_closed(now_s)
            return
        if not asked.is_refused:
            self._refuse(conn, asked.incomplete(), LEFT_EARLY)
        conn.close()

    def on_timer(self, data: float) -> None:
        if data != self._half_closed.timer_s:
            return  # somebody came from another worker who ends earlier, and had it set anew
        self._half_closed.timer_s = inf
        now_s = time.monotonic()
        for conn in self._half_closed.take_due(now_s):
            conn.close_reason = conn.close_reason or LEFT
            conn.close()  # what is queued for it goes first
        self._await_half_closed(now_s)

    def on_close(self, conn: Conn, reason: str) -> None:
        self._half_closed.remove(conn)

    def on_leave(self, conn: Conn) -> bytes | None:
        if conn.data is not None:
            return None  # its subscription is on its way, and comes soon or never
        left_s = self._half_closed.left_s(conn, time.monotonic())
        topics = self.subscribers.topics_of(conn)
        return json.dumps({"topics": topics, "framing": self.options.framing, "left_s": left_s}).encode()

    def on_arrive(self, conn: Conn, arrival: Arrival) -> None:
        told = json.loads(arrival.state)
        subscribe = self.options.subscribe
        topics = [str(topic) for topic in told["topics"]]
        if subscribe is False:
            offered = [topic for topic in topics if topic == self.options.topic]
        else:
            offered = [topic for topic in topics if subscribe.offers(topic)]
        if offered != topics:
            raise NotTaken(f"of {topics}, {offered} are here")
        if told["framing"] != self.options.framing:
            raise NotTaken(f"{told['framing']} was promised, and {self.options.framing} is what comes now")
        for topic in topics:
            self.subscribers.add(conn, topic)
        if told["left_s"] is None:
            conn.read()
        else:
            now_s = time.monotonic()
            self._half_closed.add(conn, now_s, float(told["left_s"]))
            self._await_half_closed(now_s)

    def on_message(self, topic: str, data: bytes) -> None:
        self._last.keep(topic, data)
        self.subscribers.publish(data, topic)

    def _await_half_closed(self, now_s: float) -> None:
        """Ring when the first of those that have ended their side is to end."""
        first_s = self._half_closed.first_s()
        if first_s < self._half_closed.timer_s:
            self._half_closed.timer_s = first_s
            self.timer(max(0.0, first_s - now_s), first_s)

    # -- what an operator asks ---------------------------------------------------------------------------

    def notes_on(self, conn: Conn) -> Iterable[str]:
        if conn.data is None:
            left_s = self._half_closed.left_s(conn, time.monotonic())
            return () if left_s is None else (f"It has ended its side; its subscription ends in {left_s:.1f} s.",)
        if conn.data.is_refused:
            return ("Its subscription was refused.",)
        return ("It has not said yet what it subscribes to.",)

    # -- subscribing -----------------------------------------------------------------------------------

    def _join(self, conn: Conn, topics: Sequence[str]) -> None:
        for topic in topics:
            last = self._last.of(topic)
            if last is not None:
                conn.write(last)
            self.subscribers.add(conn, topic)

    def _refuse(self, conn: Conn, error: SubscriptionError, reason: Termination = REFUSED) -> None:
        """Tell a client what is wrong with its line; it is closed when it has ended, too, or at its deadline.

        Closing with bytes unread would send a RST, which can overtake the text.
        """
        conn.data.is_refused = True
        conn.close_reason = reason
        conn.write(frame(self.options.framing, b"ERROR %s\n" % str(error).encode()))
        conn.shutdown_write()
