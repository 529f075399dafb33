"""What stands in line within a pass."""

from typing import Any


class Turns:
    """Connections in the order in which they get their turn.

    A list that keeps its memory: a pass at low load handles one or two, and to make and free a list for each costs
    more than to receive from a socket.

    Attributes:
        items: the first `count` of them stand in line; the others are None.
        count: how many do.
    """

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.count = 0

    def add(self, item: Any) -> None:
        """Let one more stand in line."""
        if self.count == len(self.items):
            self.items.append(item)
        else:
            self.items[self.count] = item
        self.count += 1

    def remove(self, item: Any) -> None:
        """Let one stand in line no more, of which it is known that it does."""
        place = self.items.index(item)
        del self.items[place]
        self.count -= 1

    def clear(self) -> None:
        """Let nobody stand in line, and hold nobody."""
        for i in range(self.count):
            self.items[i] = None
        self.count = 0
