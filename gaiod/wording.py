"""Somebody's text in a message of ours: on one line, printable, and not too long."""

SHOWN_MAX = 60
"""Characters of a text that a message repeats: enough to recognise it on one line."""


def shown(text: str) -> str:
    """Return what a message repeats of a text. An empty one is `""`, so that there is something to see."""
    return _short(text) or '""'


def quoted(text: str) -> str:
    """Return the same in quotes: for a text in which spaces may be what is wrong."""
    return f'"{_short(text)}"'


def printable(text: str) -> str:
    """Return a text of any length on one line, with escapes if it has a character that is not printable."""
    return text if text.isprintable() else ascii(text)[1:-1]


def _short(text: str) -> str:
    fit = printable(text[: SHOWN_MAX + 1])
    return fit if len(fit) <= SHOWN_MAX else f"{fit[:SHOWN_MAX]}..."
