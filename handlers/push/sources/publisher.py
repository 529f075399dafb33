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
            try:
                self.outlet.publish(line, self._topic)
            except ValueError:
                pass  # too long, say: the outlet has counted it
