"""What is read of a Redis goes here."""

import threading

from gaiod import Outlet


class Feed:
    """Publishes what comes from channels and streams, until the source is stopped."""

    def __init__(self, outlet: Outlet, topic: str | None, end: threading.Event) -> None:
        self.outlet = outlet
        self._topic = topic
        self._end = end

    @property
    def is_ended(self) -> bool:
        """Whether the source was stopped."""
        return self._end.is_set()

    def wait(self, delay_s: float) -> None:
        """Wait, but no longer than until the source is stopped."""
        self._end.wait(delay_s)

    def publish(self, name: bytes, data: bytes, position: tuple[str, str] | None = None) -> None:
        """Publish what came from the channel or stream of that name."""
        # What is not UTF-8 becomes characters that no topic may have: the message is refused.
        topic = self._topic or name.decode(errors="surrogateescape")
        try:
            self.outlet.publish(data, topic, position)
        except ValueError:
            pass  # the outlet has counted it
