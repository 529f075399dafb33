"""YAML, strictly: one document becomes plain values, and every value keeps its place.

Built on the events of PyYAML's safe loader: no tag is obeyed, no object constructed, no alias expanded.
Depth and number of values are bounded while reading. JSON is YAML, so JSON works.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from gaiod.config.errors import Keys, Place, Refused, Report
from gaiod.config.scalars import Scalar, read_plain
from gaiod.config.syntax import explain, place_of_mark
from gaiod.wording import shown

DEPTH_MAX = 32
"""A configuration needs 5 levels; each costs two frames of the interpreter's 1000."""

VALUES_MAX = 20_000
"""1,000 listeners with every key set are 10,000 values. 20,000 (240 KB) were read in 0.6 s, CPython 3.11."""

NOT_TEXT = "this key is not text, or not to every reader of YAML; put it in quotes"

START = yaml.Mark("", 0, 0, 0, None, 0)


@dataclass(slots=True)
class Document:
    """Plain values (dict, list, str, bool, int, float, None), and where each of them stands."""

    value: Any = None
    values: dict[Keys, Place] = field(default_factory=dict)
    keys: dict[Keys, Place] = field(default_factory=dict)
    refused: set[Keys] = field(default_factory=set)
    """Values refused while reading: they are None here, and need no second complaint."""
    incomplete: set[Keys] = field(default_factory=set)
    """Mappings with a refused key: what seems to be missing may be under it."""

    def place_of(self, keys: Keys) -> Place:
        """Return the place of a value."""
        return self.values[keys]

    def place_of_key(self, keys: Keys) -> Place:
        """Return the place of a value's key; of the value where it has none, as in a list."""
        return self.keys.get(keys) or self.values[keys]

    def texts_of(self, listener: str) -> Iterator[tuple[Keys, str]]:
        """Yield every text in the `with:` of a listener, and the way to it."""
        return _texts(self.value["listeners"][listener].get("with"), ("listeners", listener, "with"))


def _texts(value: Any, keys: Keys) -> Iterator[tuple[Keys, str]]:
    if isinstance(value, str):
        yield keys, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _texts(item, (*keys, key))


def read_document(text: str, report: Report) -> Document | None:
    """Read `text`; whatever is refused goes into `report`.

    Returns None where nothing can be read: broken syntax, no document or several, too deep, too many values.
    """
    loader: yaml.SafeLoader | None = None
    try:
        loader = yaml.SafeLoader(text)
        return _Reader(loader, report).read()
    except _Unreadable as error:
        report.add(error.place, (), str(error))
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # The last two: chr() and int() inside PyYAML, of "\UFFFFFFFF" or of a %YAML line.
        place, message = explain(error, text, loader.get_mark() if loader else START)
        report.add(place, (), message)
    return None


class _Unreadable(Exception):
    """Reading further makes no sense."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.place = place


class _Reader:
    """Turns the events of one loader into a Document."""

    def __init__(self, loader: yaml.SafeLoader, report: Report) -> None:
        self._loader: Any = loader  # its methods have no types
        self._report = report
        self._document = Document()
        self._count = 0

    def read(self) -> Document:
        self._next()  # the start of the stream
        if isinstance(self._next(), yaml.StreamEndEvent):
            raise _Unreadable(Place(1, 1), "the file is empty; start with listeners:")
        self._document.value = self._node(self._next(), ())
        self._next()  # the end of the document
        after = self._next()
        if not isinstance(after, yaml.StreamEndEvent):
            raise _Unreadable(_start(after), "a second document starts here; keep one document in a file")
        return self._document

    def _next(self) -> Any:
        return self._loader.get_event()

    def _node(self, event: Any, keys: Keys) -> Any:
        self._count += 1
        if len(keys) > DEPTH_MAX:
            raise _Unreadable(_start(event), f"nested too deeply; write at most {DEPTH_MAX} levels")
        if self._count > VALUES_MAX:
            raise _Unreadable(_start(event), f"too many values; write at most {VALUES_MAX} in a file")
        self._document.values.setdefault(keys, _start(event))
        markup = _markup(event)
        if markup:
            self._report.add(_start(event), keys, markup)
            self._document.refused.add(keys)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(keys)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(keys)
        return None if markup else self._scalar(event, keys)

    def _scalar(self, event: Any, keys: Keys) -> Scalar:
        try:
            return _meaning(event)
        except Refused as refused:
            self._report.add(_start(event), keys, str(refused))
            self._document.refused.add(keys)
            return None

    def _sequence(self, keys: Keys) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            items.append(self._node(event, (*keys, len(items))))
        return items

    def _mapping(self, keys: Keys) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            name, wrong = _key(event)
            place = _start(event)
            child = (*keys, name)
            if name in mapping and not wrong:
                wrong = f"duplicate key, first in line {self._document.keys[child].line}; keep one of them"
            if wrong:
                self._report.add(place, child, wrong)
                self._document.incomplete.add(keys)
                self._node(self._next(), child)
            else:
                self._document.keys[child] = place
                mapping[name] = self._node(self._next(), child)
        return mapping


def _start(event: Any) -> Place:
    return place_of_mark(event.start_mark)


def _key(event: Any) -> tuple[str, str]:
    """Return the text of a key, and what is wrong with it (empty: nothing)."""
    if isinstance(event, yaml.CollectionStartEvent):
        raise _Unreadable(_start(event), "this key is a list or a mapping; write text as the key")
    text = f"*{event.anchor}" if isinstance(event, yaml.AliasEvent) else event.value
    if markup := _markup(event):
        return text, markup
    if text == "<<" and not event.style:
        return text, "merge keys are not supported; write the keys out"
    try:
        name = _meaning(event)
    except Refused as refused:
        return text, str(refused) if event.style else NOT_TEXT
    return (name, "") if isinstance(name, str) else (text, NOT_TEXT)


def _markup(event: Any) -> str:
    """Say what is wrong with an alias, an anchor or a tag; empty: there is none."""
    if isinstance(event, yaml.AliasEvent):
        return f"*{shown(event.anchor or '')} is an alias; write the value out"
    if event.anchor is not None:
        return f"&{shown(event.anchor)} is an anchor; remove it and write the value out where it is used"
    if event.tag is not None:
        return f"the tag {shown(event.tag.replace('tag:yaml.org,2002:', '!!'))} is not supported; remove it"
    return ""


def _meaning(event: Any) -> Scalar:
    return _joined(event.value) if event.style else read_plain(event.value)


def _joined(text: str) -> str:
    """Return quoted text with the pairs of surrogates, as JSON escapes an emoji, joined."""
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise Refused("an escape is half of a surrogate pair; write the character itself") from None
