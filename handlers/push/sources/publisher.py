"""Where lines go that a source has read."""

from gaiod import Outlet


class Publisher:
    """Publishes lines under one topic."""

    def __init__(self, outlet: Outlet, topic: str) -> None:
        self.outlet = outlet
        self._topic = topic

    def publish(self, lines: list[bytes]) -> None:
        """Publish what can be."""
        for line in lines:
            self.publish_one(line)

    def publish_one(self, line: bytes, position: tuple[str, str] | None = None) -> None:
        """Publish a line, if it can be, with the position behind it."""
        try:
            self.outlet.publish(line, self._topic, position)
        except ValueError:
            pass  # too long, say: the outlet has counted it
