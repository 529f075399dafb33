"""Sources: where the messages of a listener come from.

    class Clock(Source):
        name = "clock"

        def start(self, outlet: Outlet) -> None:
            self._outlet = outlet
            self._tick()

        def _tick(self) -> None:
            self._outlet.publish(b"tick", "time")
            self._outlet.timer(1.0, self._tick)

A handler names its sources (`Handler.sources_of`). They run once per daemon, in the feeder, a process of its
own; what they publish reaches the handler in every worker (`Handler.on_message`).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Protocol

from gaiod.handler.hooks import check_methods

if TYPE_CHECKING:  # the handler's module needs this one
    from gaiod.handler.handler import Handler

IDLE_TIMEOUT_S = 60.0
"""For who asks and is answered. One who sends now and then needs more."""

PUBLISH = "publish"
"""The name of the source that every listener which takes messages has: `gaiod publish`."""


class Outlet(Protocol):
    """What a source publishes through, and what it may ask for. It does nothing more once the source is stopped."""

    def publish(self, data: bytes, topic: str) -> None:
        """Give a message to every worker. Any thread may call this.

        In a thread of the source's own it waits while `is_behind`, but no longer than until the source is
        stopped; in the loop's thread it never waits.

        Raises:
            ValueError: the handler refuses the message (`Handler.encode_message`), or it is empty or too long. The
                text says why; it was counted as refused, and went to nobody.
        """

    @property
    def is_behind(self) -> bool:
        """Whether workers have not taken much of what was published: in the loop's thread, read no more for now."""

    @property
    def up(self) -> bool:
        """Whether the source gets what it is to publish. True from before `start` on, until it is set to False.

        Any thread may look, and set it: metrics show it.
        """

    @up.setter
    def up(self, is_up: bool) -> None: ...

    def reconnected(self) -> None:
        """Count that the source was cut off, and no longer is. Any thread may call this."""

    def gap(self, reason: str) -> None:
        """Count that messages may be missing here, one or many, and log why. Any thread may call this.

        Args:
            reason: a sentence for the log, which has one of them a second at most.
        """

    def timer(self, delay_s: float, action: Callable[[], None]) -> None:
        """Have `action()` called once in the loop's thread, `delay_s` seconds from now. Call it in that thread."""

    def post(self, action: Callable[[], None]) -> None:
        """Have `action()` called in the loop's thread, soon. Any thread may call this; it never blocks.

        Raises:
            TooManyOperations: 65,536 wait already.
        """

    def serve(self, bind: str, handler: "Handler", *, idle_timeout_s: float = IDLE_TIMEOUT_S) -> None:
        """Listen, and answer with a handler, in the loop's thread: call it there. It ends with the source.

        At most 100 connections.

        Args:
            bind: `127.0.0.1:PORT`, `[::1]:PORT` or `unix:/absolute/path`. The file of a unix socket that is removed
                is made anew. Nothing is taken over from somebody who listens there: raise what this raises, and
                `start` is called again, first after 10 ms, for it may be the daemon that this one replaces.
            handler: an instance of its own; it may hold the source and the outlet.
            idle_timeout_s: a connection that has moved nothing for so long is closed.

        Raises:
            ValueError: not such an address.
            OSError: it cannot be had; EADDRINUSE: somebody listens there.
        """


class Source:
    """Takes messages in from somewhere, and publishes them.

    Making one does no I/O: `gaiod check` does it, too.

    Attributes:
        name: what metrics call it: unique in its listener, and not `publish`.
        is_inlet: others send to it. Of two daemons during an upgrade, only the one that takes over runs it.
    """

    name: str = ""
    is_inlet: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        """Refuse a method that is async, or cannot be called with its arguments."""
        super().__init_subclass__()
        check_methods(cls, Source, ("start", "stop"))

    def start(self, outlet: Outlet) -> None:
        """Begin to publish. In the loop's thread of the feeder: it must not block.

        An exception is logged, the source is down, and this is called again after a while with another outlet;
        `stop` is not called in between.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """Take nothing in any more, and end the threads it started. In the loop's thread; return soon.

        Timers, posts and sockets of the outlet have ended by then.
        """
