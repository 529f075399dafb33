"""Names of topics."""

from gaiod import shown

TOPIC_MAX_BYTES = 128
"""Longer than any name that a person chose; 16 of them fit into a subscription line of a few KiB."""


def check_topic(name: str) -> None:
    """Refuse what is no topic's name: 1 to 128 bytes of printable UTF-8 without spaces.

    Raises:
        ValueError: it is none; the text says what to write.
    """
    if not name:
        raise ValueError("is an empty topic; write a name such as ticks")
    if not name.isprintable() or " " in name:  # the one space that is printable
        raise ValueError(f"{shown(name)} is not a topic; write a name without spaces and special characters")
    size = len(name.encode())
    if size > TOPIC_MAX_BYTES:
        raise ValueError(f"{shown(name)} has {size} bytes; a topic has at most {TOPIC_MAX_BYTES}")
