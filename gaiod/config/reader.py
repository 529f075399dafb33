"""Read a value as a table of kinds says, and note everything in it that does not fit, with its place.

The keys of the file (`schema`) and the options of a handler (`options`) are declared with the same kinds:

    Value      one parser makes something of it
    Items      a list, each item of one kind
    Named      a mapping whose keys the user chooses, each value of one kind
    Section    a mapping whose keys are fixed
    Chosen     its kind depends on the value
    Checked    another kind, and checks of the whole

A parser takes a value as YAML has it, and returns it as the settings hold it, or raises Refused. What it raises
is noted at the value; reading continues with the next one.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from gaiod.config.errors import Keys, Refused, Report
from gaiod.config.words import NAMES, mismatch, unknown
from gaiod.config.yaml import Document

Parser = Callable[[Any], Any]


class Kind(Protocol):
    """What a value has to be."""

    def read(self, value: Any, keys: Keys, reader: "Reader") -> Any:
        """Return what `value`, which is at `keys`, means; note what does not fit within it.

        Raises:
            Refused: the value itself does not fit.
        """


class Reader:
    """Walks a document and the kinds of its values together."""

    def __init__(self, document: Document, report: Report) -> None:
        self._document = document
        self._report = report
        self.holes = 0
        """Values and keys that were refused so far, here or by YAML: what holds one is not made, nor checked."""

    def read(self, kind: Kind, value: Any, keys: Keys) -> Any:
        """Return what a value means; None where it was refused, which is noted."""
        self.holes += self._has_complaint(keys)
        try:
            return kind.read(value, keys, self)
        except Refused as refused:
            self.holes += 1
            if not self._has_complaint(keys):
                message = str(refused) if keys else f"the file {refused}"
                self._report.add(self._document.place_of(keys), keys, message)
            return None

    def refuse_key(self, keys: Keys, message: str) -> None:
        """Note what is wrong with a key."""
        self.holes += 1
        self._report.add(self._document.place_of_key(keys), keys, message)

    def refuse_absence(self, keys: Keys, example: str) -> None:
        """Note that a key is missing, unless a key that YAML refused may be it."""
        self.holes += 1
        if keys[:-1] not in self._document.incomplete:
            self._report.add(self._document.place_of_key(keys[:-1]), keys, f"missing; add {keys[-1]}: {example}")

    def _has_complaint(self, keys: Keys) -> bool:
        """Tell whether YAML refused the value or a key in it: a second complaint would only confuse."""
        return keys in self._document.refused or keys in self._document.incomplete


def of_type(value: Any, kind: type, wanted: str = "") -> Any:
    """Return a value of one of YAML's types; `wanted` is what to write instead of another.

    Raises:
        Refused: it has another type.
    """
    if type(value) is not kind:
        raise Refused(mismatch(value, wanted or NAMES[kind]))
    return value


def a_list(value: Any) -> Any:
    """Return a list, whatever is in it."""
    return of_type(value, list)


def a_mapping(value: Any) -> Any:
    """Return a mapping, whatever is in it."""
    return of_type(value, dict)


@dataclass(frozen=True, slots=True)
class Value:
    """What one parser takes."""

    parse: Parser

    def read(self, value: Any, keys: Keys, reader: Reader) -> Any:
        """Return what the parser makes of it."""
        return self.parse(value)


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    item: Kind
    parse: Parser = a_list
    """Takes the list before its items are read."""
    make: Callable[[Iterable[Any]], Any] = list

    def read(self, value: Any, keys: Keys, reader: Reader) -> Any:
        """Return what the items mean."""
        return self.make([reader.read(self.item, item, (*keys, index)) for index, item in enumerate(self.parse(value))])


@dataclass(frozen=True, slots=True)
class Named:
    """A mapping from names to values of one kind."""

    item: Kind
    parse: Parser = a_mapping
    """Takes the mapping before its values are read."""
    check_name: Callable[[str], object] = str
    """Raises Refused for a text that is no name."""

    def read(self, value: Any, keys: Keys, reader: Reader) -> dict[str, Any]:
        """Return what the values mean, by name."""
        named = {}
        for name, item in self.parse(value).items():
            try:
                self.check_name(name)
            except Refused as refused:
                reader.refuse_key((*keys, name), str(refused))
            named[name] = reader.read(self.item, item, (*keys, name))
        return named


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a section."""

    setting: str
    """The field that it fills; empty for a section whose own keys fill fields of what the section above makes."""
    kind: Kind
    example: str = ""
    """What to add where the key is missing; empty: it may be."""


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping with fixed keys."""

    keys: Mapping[str, Key]
    make: Callable[..., Any] = dict
    """Takes the fields of the keys that are given."""
    noun: str = "key"
    misplaced: Mapping[str, str] = field(default_factory=dict)
    """Keys that belong elsewhere, and what to say of them."""

    def read(self, value: Any, keys: Keys, reader: Reader) -> Any:
        """Return what is made of the fields; None where something in it was refused."""
        if isinstance(value, bool) and "enabled" in self.keys:
            raise Refused(f"is a boolean; write {{enabled: {str(value).lower()}}}")
        a_mapping(value)
        before = reader.holes
        for name, key in self.keys.items():
            if key.example and name not in value:
                reader.refuse_absence((*keys, name), key.example)
        fields: dict[str, Any] = {}
        for name, item in value.items():
            if name in self.keys:
                key = self.keys[name]
                part = reader.read(key.kind, item, (*keys, name))
                fields.update({key.setting: part} if key.setting else part or {})
            else:
                wrong = self.misplaced.get(name) or unknown(name, list(self.keys), what=f"unknown {self.noun}")
                reader.refuse_key((*keys, name), wrong)
        return self.make(**fields) if reader.holes == before else None


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is of one kind or another."""

    choose: Callable[[Any], Kind]
    """Takes the value; raises Refused if no kind takes it."""

    def read(self, value: Any, keys: Keys, reader: Reader) -> Any:
        """Return what the value means as the kind it is."""
        return self.choose(value).read(value, keys, reader)


@dataclass(frozen=True, slots=True)
class Checked:
    """A kind with checks that need the whole."""

    kind: Kind
    checks: tuple[Callable[[Any], object], ...]
    """Each raises Refused for what does not fit."""

    def read(self, value: Any, keys: Keys, reader: Reader) -> Any:
        """Return what the value means. It is checked if nothing in it was refused."""
        before = reader.holes
        plain = self.kind.read(value, keys, reader)
        if reader.holes == before:
            for check in self.checks:
                check(plain)
        return plain
