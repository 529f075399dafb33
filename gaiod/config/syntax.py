"""What PyYAML says about broken syntax, in words that tell what to do."""

import re

from yaml.error import Mark, MarkedYAMLError
from yaml.reader import ReaderError

from gaiod.config.errors import Place
from gaiod.wording import printable, shown

EVERY_ADDRESS = re.compile(r":\s+\*:([0-9]+)")
UNQUOTED_V6 = re.compile(r"""(?<!["'])\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\]:[0-9]+""")

# (part of PyYAML's text, ours); {near} is the character at the place. The first that fits is used.
TRANSLATIONS = (
    (r"found character '\t'", "a tab stands where only spaces can; indent with spaces"),
    ("cannot start any token", "unquoted text cannot start with {near}; put it in quotes"),
    (
        "mapping values are not allowed",
        "a ':' where no key can be; indent like the line above, or quote the text",
    ),
    ("expected alphabetic or numeric character", "unquoted text cannot start with * or &; put it in quotes"),
    ("could not find expected ':'", "a key has no ':' after it; write key: value"),
    ("expected <block end>", "this does not line up with what is above; indent one mapping's keys alike"),
    ("expected ',' or '}'", "a comma or a closing }} is missing before this; add it"),
    ("expected ',' or ']'", "a comma or a closing ] is missing before this; add it"),
    ("expected the node content", "a value cannot start with {near}; put it in quotes"),
    ("sequence entries are not allowed", "a list item stands where none can; start it on a line of its own"),
    ("expected '<document start>'", "this stands after the end of the document; keep one document"),
    ("unknown escape character", r"\{near} is no escape; write \\ for a backslash, or use single quotes"),
)

# What was opened and never closed is shown where it was opened.
NEVER_CLOSED = ("found unexpected end of stream", "<stream end>")


def explain(error: Exception, text: str, reached: Mark) -> tuple[Place, str]:
    """Return where and what is wrong, for an exception that PyYAML raised while reading `text`.

    `reached` is how far it had come, for the exceptions that do not say so themselves.
    """
    if isinstance(error, ReaderError):
        character = ord(text[error.position])
        return _place_of(text, error.position), f"the character U+{character:04X} is not allowed; remove it"
    if not isinstance(error, MarkedYAMLError):
        # chr() and int() of what an escape ("\UFFFFFFFF") or a %YAML line holds.
        return place_of_mark(reached), "an escape or a version is out of range; correct it"
    problem = error.problem or "it is not YAML"
    if error.context_mark and any(sign in problem for sign in NEVER_CLOSED):
        near = _near(text, error.context_mark)
        return place_of_mark(error.context_mark), f"{near} is opened here and never closed; close it"
    mark = error.problem_mark or error.context_mark or reached
    return place_of_mark(mark), _unquoted_address(text, mark) or _translate(problem, _near(text, mark))


def place_of_mark(mark: Mark) -> Place:
    """Return PyYAML's place, which counts from 0, as ours."""
    return Place(mark.line + 1, mark.column + 1)


def _translate(problem: str, near: str) -> str:
    for part, words in TRANSLATIONS:
        if part in problem:
            return words.format(near=near)
    return f"{shown(problem)}; check quotes, brackets and indentation"


def _unquoted_address(text: str, mark: Mark) -> str:
    line = text[: mark.index + 1].rpartition("\n")[2] + text[mark.index + 1 :].partition("\n")[0]
    every = EVERY_ADDRESS.search(line)
    if every is not None:
        return f'unquoted text cannot start with *; write 0.0.0.0:{every[1]} or "[::]:{every[1]}" for every address'
    found = UNQUOTED_V6.search(line)
    return f'brackets start a list in YAML; put the address in quotes: "{found[0]}"' if found else ""


def _near(text: str, mark: Mark) -> str:
    return printable(text[mark.index : mark.index + 1])


def _place_of(text: str, index: int) -> Place:
    before = text[:index]
    return Place(before.count("\n") + 1, index - before.rfind("\n"))
