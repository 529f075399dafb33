"""The line with which a client says what it wants: `SUBSCRIBE name[ name...]`."""

from gaiod import shown

from .options import SubscribeOptions
from .topics import check_topic

KEYWORD = "SUBSCRIBE"
BYTES_PER_TOPIC = 256
"""Of the longest line that is taken, for each topic it may name: a name has 128 bytes at most."""


class SubscriptionError(Exception):
    """A client's line is refused. The text is for the client."""


class Subscription:
    """The `data` of a connection that has not said its topics yet: what has come of its line.

    Attributes:
        deadline_s: until when all of it must have come, in `time.monotonic()` seconds.
        is_refused: whether the client has been told that the line is wrong.
    """

    __slots__ = ("_line", "_options", "deadline_s", "is_refused")

    def __init__(self, options: SubscribeOptions, now_s: float) -> None:
        self._options = options
        self._line = b""
        self.deadline_s = now_s + options.timeout
        self.is_refused = False

    def feed(self, data: bytes) -> tuple[str, ...]:
        """Take what has come; return the topics once the line is whole, () before. What is behind it is ignored.

        Raises:
            SubscriptionError: the line is too long, or no subscription.
        """
        if self.is_refused:
            return ()
        end = data.find(b"\n")
        self._line += data if end < 0 else data[:end]
        line_max_bytes = self._options.topics_max * BYTES_PER_TOPIC
        if len(self._line) > line_max_bytes:
            raise SubscriptionError(f"the line has more than {line_max_bytes} bytes")
        return () if end < 0 else self._topics()

    def incomplete(self) -> SubscriptionError:
        """Return what to say to a client that ends before its line does."""
        return SubscriptionError(f"the line has no end; write {KEYWORD} name[ name...] and a newline")

    def _topics(self) -> tuple[str, ...]:
        try:
            keyword, *names = self._line.removesuffix(b"\r").decode().split(" ")
        except UnicodeDecodeError:
            raise SubscriptionError("the line is not UTF-8") from None
        if keyword != KEYWORD or not names:
            raise SubscriptionError(f"write {KEYWORD} name[ name...] and a newline")
        if len(names) > self._options.topics_max:
            raise SubscriptionError(
                f"the line names {len(names)} topics; at most {self._options.topics_max} are possible"
            )
        for name in names:
            try:
                check_topic(name)
            except ValueError as error:
                raise SubscriptionError(str(error)) from None
            if not self._options.offers(name):
                raise SubscriptionError(f"there is no topic {shown(name)} here")
        return tuple(dict.fromkeys(names))
