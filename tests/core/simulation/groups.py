"""What the model knows of a group: who shall get what, and that it comes whole and in its order."""

from typing import Any

from core.simulation.setting import Fault


class Membership:
    """What a connection was sent as a member.

    Attributes:
        may_skip: messages may be dropped.
        topics: that it has now.
        owed: messages that may come, by topic, in their order.
        begun: of the message that is being sent, what is left.
    """

    def __init__(self, may_skip: bool) -> None:
        self.may_skip = may_skip
        self.topics: set[str] = set()
        self.owed: dict[str, list[bytes]] = {}
        self.begun = b""

    def publish(self, topic: str, data: bytes) -> None:
        self.owed.setdefault(topic, []).append(data)

    def take(self, rec: Any, data: bytes) -> None:
        """Check what was sent: the rest of a message, and others, each later than those before it in its topic.

        The first byte of a message is its number.
        """
        while data:
            if not self.begun:
                self.begun = self._begin(rec, data)
            size = min(len(self.begun), len(data))
            if self.begun[:size] != data[:size]:
                raise Fault(f"{rec} was sent {data!r} where {self.begun!r} was to come")
            self.begun = self.begun[size:]
            data = data[size:]

    def _begin(self, rec: Any, data: bytes) -> bytes:
        for owed in self.owed.values():
            for i, message in enumerate(owed):
                if message[0] == data[0]:
                    if i and not self.may_skip:
                        break
                    del owed[: i + 1]
                    return message
        raise Fault(f"{rec} was sent {data!r}, which is not the next of the messages that it may get")

    def is_between(self, rec: Any) -> None:
        if self.begun:
            raise Fault(f"{rec} was sent a write of its own within a message, before {self.begun!r}")
