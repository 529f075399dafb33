"""The last message of each topic, for subscribers that come later."""

from collections import OrderedDict

TOPIC_BYTES = 200
"""What remembering a topic takes besides its name and message: the entry, two objects."""


class LastValues:
    """Keeps the last message of each topic, of as many topics as fit.

    Where clients choose topics, publishers can make up any number of them: the topic of which the last message is
    oldest is forgotten first.

    Args:
        bytes_max: what all of it may take; 0: nothing is kept.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._messages: OrderedDict[str, bytes] = OrderedDict()  # the topic published longest ago first

    def keep(self, topic: str, data: bytes) -> None:
        """Keep a topic's last message."""
        if not self._bytes_max:
            return
        before = self._messages.pop(topic, None)
        if before is not None:
            self._bytes -= _size(topic, before)
        self._messages[topic] = data
        self._bytes += _size(topic, data)
        while self._bytes > self._bytes_max:
            self._bytes -= _size(*self._messages.popitem(last=False))

    def of(self, topic: str) -> bytes | None:
        """Return a topic's last message; None: there is none."""
        return self._messages.get(topic)


def _size(topic: str, data: bytes) -> int:
    return len(topic) + len(data) + TOPIC_BYTES
