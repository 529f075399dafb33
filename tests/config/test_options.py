"""A handler's `with:` against its dataclass. What is said of wrong ones: see refused/option-*.yaml."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from gaiod.config import ConfigErrors, loads
from gaiod.handler.handler import Handler
from gaiod.handler.option_types import Check, PemFile
from gaiod.plugins import build_options
from gaiod.wording import shown

Options = Callable[[str], dict[str, Any]]

KIT = "listeners:\n  kit:\n    bind: 127.0.0.1:7000\n    handler: kit\n    with:\n      name: a\n"


@pytest.fixture
def options(load_handler: Callable[[str], type[Handler]]) -> Options:
    """Return a function that loads one option, as YAML, of the handler kit."""

    def load_one(line: str) -> dict[str, Any]:
        settings = loads(f"{KIT}      {line}\n", load_handler=load_handler)
        return dict(settings.listeners[0].options)

    return load_one


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("count: 2", 2),
        ("share: 0.25", 0.25),
        ("share: 1", 1.0),
        ("loud: true", True),
        ("mode: slow", "slow"),
        ("retries: 2", 2),
        ("wait: 250ms", 0.25),
        ("grace: 1m", 60.0),
        ("buffer: 4096", 4096),
        ("buffer: 64KiB", 65536),
        ("patience: ~", None),
        ("patience: 1h", 3600.0),
        ("first: {address: a, weight: 2}", {"address": "a", "weight": 2}),
        ("servers: [{address: a}, {address: b}]", [{"address": "a"}, {"address": "b"}]),
        ("ports: [1, 2]", [1, 2]),
        ("labels: {a: b, 'c d': '1'}", {"a": "b", "c d": "1"}),
        ("tries: 10", 10),
        ("topic: sport", "sport"),
        ("upstreams: [a, {address: b}]", ["a", {"address": "b"}]),
        ("when: never", "never"),
        ("when: 2s", 2.0),
        ("when: ~", None),
        ("several: [1, 2]", [1, 2]),
    ],
)
def test_option_becomes_a_plain_value(options: Options, line: str, value: object) -> None:
    name = line.partition(":")[0]
    assert options(line) == {"name": "a", name: value}
    assert type(options(line)[name]) is type(value)


def test_only_the_given_options_are_returned(options: Options) -> None:
    """The handler's own defaults stay the handler's."""
    assert options("") == {"name": "a"}


@dataclass
class Recorder:
    """Keeps what it was made of, as a handler would get it."""

    rows: list["Row"] = field(default_factory=list)
    first: "Row | None" = None

    def __post_init__(self) -> None:
        made.append(self)


@dataclass
class Row:
    """One nested row."""

    numbers: list[int]
    extra: Any = None


made: list[Recorder] = []


class Recording(Handler):
    """Its options are recorded."""

    Options = Recorder


def test_post_init_sees_real_dataclasses_all_the_way_down() -> None:
    made.clear()
    text = "{rows: [{numbers: [1]}, {numbers: [], extra: {x: [y]}}], first: {numbers: [2]}}"
    loads(
        f"listeners: {{r: {{bind: 127.0.0.1:7000, handler: r, with: {text}}}}}",
        load_handler=lambda _: Recording,
    )
    (got,) = made
    assert got == Recorder([Row([1]), Row([], {"x": ["y"]})], Row([2]))


@pytest.mark.parametrize("wrong", ["rows: [{numbers: [yes]}]", "rows: 5", "row: []", "<<: {}"])
def test_post_init_does_not_run_on_options_that_are_wrong_already(wrong: str) -> None:
    made.clear()
    text = f"listeners: {{r: {{bind: 127.0.0.1:7000, handler: r, with: {{{wrong}}}}}}}"
    with pytest.raises(ConfigErrors) as errors:
        loads(text, load_handler=lambda _: Recording)
    assert len(errors.value.errors) == 1
    assert made == []


def test_options_whose_types_cannot_be_found_are_reported_with_their_place() -> None:
    class Lacking(Handler):
        @dataclass
        class Options:
            path: "Elsewhere" = None  # type: ignore[name-defined]  # noqa: F821 - that is the point

    with pytest.raises(ConfigErrors, match=r":1:\d+: listeners.r.with: .*Elsewhere.*; import it at run time"):
        loads("listeners: {r: {bind: 127.0.0.1:7000, handler: r, with: {}}}", load_handler=lambda _: Lacking)


def test_option_of_a_type_that_no_file_can_hold_is_reported_when_given() -> None:
    class Pathy(Handler):
        @dataclass
        class Options:
            root: Path = Path("/")

    text = "listeners: {r: {bind: 127.0.0.1:7000, handler: r, with: {root: /srv}}}"
    with pytest.raises(ConfigErrors, match=r"with.root: its type, .*Path.*, can be in no file; change it"):
        loads(text, load_handler=lambda _: Pathy)


def _long(file: PemFile) -> None:
    if len(file.text) < 4:
        raise ValueError(f"{file.path} is short; write a longer one")


class Believing(Handler):
    """Options of it name files."""

    @dataclass
    class Options:
        """One alone, and one among others."""

        ca: Literal["system"] | Annotated[PemFile, Check(_long)] = "system"
        key: PemFile | None = None


def believing(with_: str) -> Any:
    text = f"listeners: {{r: {{bind: 127.0.0.1:7000, handler: r, with: {with_}}}}}"
    return loads(text, load_handler=lambda _: Believing).listeners[0].options


def test_option_that_names_a_file_becomes_its_text(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("text")
    plain = believing(f"{{ca: {file}, key: {file}}}")
    assert plain == {"ca": {"path": str(file), "text": "text"}, "key": {"path": str(file), "text": "text"}}
    built = build_options(Believing, plain)
    assert (built.ca, built.key) == (PemFile(str(file), "text"), PemFile(str(file), "text"))
    assert "text" not in repr(built.key).replace("path", "")
    assert build_options(Believing, believing("{ca: system}")).ca == "system"


@pytest.mark.parametrize(
    ("option", "path", "message"),
    [
        ("ca", "other.pem", "ca: SHOWN is not an absolute path; write the absolute path of a PEM file"),
        ("key", "5", "key: is a whole number; write the absolute path of a PEM file"),
        ("key", "FOLDER/none", "key: SHOWN: No such file or directory; write the absolute path of a PEM file"),
        ("key", "FOLDER", "key: SHOWN is not a file; write the absolute path of a PEM file"),
        ("ca", "[a]", "ca: is a list; write system or the absolute path of a PEM file"),
    ],
)
def test_option_that_names_no_file_is_refused(tmp_path: Path, option: str, path: str, message: str) -> None:
    path = path.replace("FOLDER", str(tmp_path))
    with pytest.raises(ConfigErrors) as errors:
        believing(f"{{{option}: {path}}}")
    assert str(errors.value.errors[0]).endswith(message.replace("SHOWN", shown(path)))


def test_check_of_an_option_that_names_a_file_sees_its_text(tmp_path: Path) -> None:
    (tmp_path / "short").write_text("abc")
    with pytest.raises(ConfigErrors, match=r"with\.ca: .* is short; write a longer one"):
        believing(f"{{ca: {tmp_path}/short}}")
