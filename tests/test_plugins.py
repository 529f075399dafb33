"""Handlers are found by name, by dotted path and by file, and what cannot be used is told with its place."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from gaiod.handlers.echo import Echo  # installed from handlers/

from gaiod import Duration, Handler, Size, plugins
from gaiod.plugins import HandlerLoadError, build_options, installed, label_of, load_handler, pinned

ONE = "import gaiod\n\n\nclass Shout(gaiod.Handler):\n    '''Loud.'''\n"
TWO = ONE + "\n\nclass Whisper(gaiod.Handler):\n    '''Quiet.'''\n\n\nLOUD = 11\n"

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Write]:
    """Write the text of a handler's file, and return its path."""
    before = set(sys.modules)

    def write(text: str) -> str:
        path = tmp_path / "shout.py"
        path.write_text(text)
        return str(path)

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def _refusal(reference: str) -> str:
    with pytest.raises(HandlerLoadError) as refused:
        load_handler(reference)
    return str(refused.value)


# -- finding -------------------------------------------------------------------------------------------


def test_handler_is_found_by_the_name_of_its_entry_point() -> None:
    assert load_handler("echo") is Echo
    assert installed()["echo"] == "gaiod.handlers.echo:Echo"


def test_handler_is_found_by_its_dotted_path() -> None:
    assert load_handler("gaiod.handlers.echo:Echo") is Echo


def test_handler_is_found_in_a_file_that_defines_one(write: Write) -> None:
    """What it imports is not what it defines."""
    assert load_handler(write("from gaiod.handlers.echo import Echo\n" + ONE)).__name__ == "Shout"


def test_handler_is_found_by_its_class_in_a_file_that_defines_two(write: Write) -> None:
    path = write(TWO)
    assert load_handler(f"{path}:Whisper").__doc__ == "Quiet."
    assert load_handler(f"{path}:Shout").__doc__ == "Loud."


def test_options_dataclass_works_in_a_file(write: Write) -> None:
    """Dataclasses look their own module up."""
    kind = load_handler(
        write(
            "from __future__ import annotations\nfrom dataclasses import dataclass\nimport gaiod\n"
            "Wait = gaiod.Duration\n@dataclass\nclass Options:\n    wait: Wait = 1.0\n"
            "class Shout(gaiod.Handler):\n    Options = Options\n"
        )
    )
    assert build_options(kind, {"wait": 2.5}).wait == 2.5


def test_reference_is_pinned_so_that_a_worker_need_not_search() -> None:
    assert pinned("echo") == "gaiod.handlers.echo:Echo"
    assert pinned("a.b:C") == "a.b:C"
    assert pinned("/a/b.py") == "/a/b.py"


@pytest.mark.parametrize(
    ("reference", "label"),
    [("echo", "echo"), ("pack.module:Shout", "Shout"), ("/opt/shout.py", "shout"), ("/opt/many.py:Whisper", "Whisper")],
)
def test_label_is_what_a_person_would_call_the_handler(reference: str, label: str) -> None:
    assert label_of(reference) == label


# -- refusing ------------------------------------------------------------------------------------------


def test_name_is_refused_and_those_there_are_named_when_nothing_is_installed_under_it() -> None:
    message = _refusal("ehco")
    assert "no installed package offers a handler ehco" in message
    assert "echo" in message
    assert "./ehco.py" in message


@pytest.mark.parametrize("reference", ["no_such_module:X", "gaiod.handlers.nothing:X", "no_such.deep.module:X"])
def test_module_is_refused_when_it_is_not_there(reference: str) -> None:
    assert f"there is no module {reference[:-2]}; install" in _refusal(reference)


def test_file_is_refused_when_it_is_not_there(tmp_path: Path) -> None:
    assert f"there is no file {tmp_path / 'x.py'}; " in _refusal(str(tmp_path / "x.py"))


def test_file_is_refused_when_it_defines_no_handler(write: Write) -> None:
    """An imported one is somebody else's."""
    message = _refusal(write("from gaiod import Handler\nfrom gaiod.handlers.echo import Echo\n"))
    assert "it defines no handler: derive a class from gaiod.Handler" in message


def test_file_is_refused_and_its_handlers_are_named_when_it_defines_two(write: Write) -> None:
    assert "it defines Shout, Whisper: write one of them behind a colon" in _refusal(write(TWO))


def test_class_is_refused_and_the_handlers_are_named_when_it_is_not_there(write: Write) -> None:
    path = write(ONE)
    assert _refusal(f"{path}:Shuot") == f"{path} has no Shuot; it defines Shout: write behind a colon"


@pytest.mark.parametrize("name", ["LOUD", "gaiod"])
def test_what_is_no_handler_is_refused(write: Write, name: str) -> None:
    assert "is not a handler; derive it from gaiod.Handler" in _refusal(f"{write(TWO)}:{name}")


@pytest.mark.parametrize(
    ("text", "line", "cause"),
    [
        (ONE + "def broken(:\n", 6, "is not valid Python"),
        ("x = 1\nx = 1 / 0\n", 2, "ZeroDivisionError: division by zero"),
        ("\nimport no_such_thing_here\n", 2, "ModuleNotFoundError: No module named 'no_such_thing_here'"),
        ("\n\nfrom os import no_such_name\n", 3, "ImportError: cannot import name 'no_such_name'"),
        ("import json\njson.loads('{')\n", 2, "JSONDecodeError"),
        (ONE + "\n\nclass Bad(gaiod.Handler):\n    def on_raed(self): ...\n", 8, "did you mean on_read?"),
    ],
    ids=["syntax", "raises", "module missing", "name missing", "raises elsewhere", "unknown hook"],
)
def test_file_is_refused_with_its_own_line_when_it_cannot_be_imported(
    write: Write, text: str, line: int, cause: str
) -> None:
    path = write(text)
    message = _refusal(path)
    assert f"{path}:{line}:" in message
    assert cause in message


def test_module_that_a_handlers_module_lacks_is_named(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the handler's module is missing: the message must not send anybody to install that."""
    path = Path(write("import no_such_thing_here\n"))
    monkeypatch.syspath_prepend(str(path.parent))
    message = _refusal("shout:Shout")
    assert "No module named 'no_such_thing_here'" in message
    assert "there is no module shout" not in message


@pytest.mark.parametrize("status", ["", "0", "3"])
def test_file_is_refused_when_it_exits_at_import(write: Write, status: str) -> None:
    """A script, say: it must not end the daemon, nor a check, with a status of its own."""
    assert "SystemExit" in _refusal(write(f"import sys\nsys.exit({status})\n"))


def test_failed_file_leaves_no_module_behind(write: Write) -> None:
    _refusal(write("raise RuntimeError\n"))
    assert "gaiod_handler_shout" not in sys.modules


def test_file_that_was_mended_loads(write: Write) -> None:
    _refusal(write("raise RuntimeError\n"))
    assert load_handler(write(ONE)).__name__ == "Shout"


# -- options -------------------------------------------------------------------------------------------


@dataclass
class Server:
    """Nested."""

    address: str
    weight: int = 1


@dataclass
class Options:
    """One option of each kind that can be nested."""

    name: str = "x"
    wait: Duration = 1.0
    buffer: Size = 1024
    first: Server | None = None
    servers: list[Server] = field(default_factory=list)
    by_name: dict[str, Server] = field(default_factory=dict)
    ports: tuple[int, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    groups: list[list[Server]] = field(default_factory=list)


class Kit(Handler):
    """A handler with options."""

    Options = Options


A = {"address": "a"}
B = {"address": "b", "weight": 2}


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ({}, Options()),
        ({"name": "y", "wait": 0.5, "buffer": 1}, Options("y", 0.5, 1)),
        ({"first": B}, Options(first=Server("b", 2))),
        ({"first": None}, Options()),
        ({"servers": [A, B]}, Options(servers=[Server("a"), Server("b", 2)])),
        ({"servers": []}, Options()),
        ({"labels": {"address": "x"}}, Options(labels={"address": "x"})),
        ({"ports": [1, 2]}, Options(ports=(1, 2))),
        ({"by_name": {"one": A, "two": B}}, Options(by_name={"one": Server("a"), "two": Server("b", 2)})),
        ({"by_name": {}}, Options(by_name={})),
        ({"by_name": {"address": A}}, Options(by_name={"address": Server("a")})),
        ({"groups": [[A], []]}, Options(groups=[[Server("a")], []])),
    ],
    ids=str,
)
def test_options_are_made_of_plain_values(values: dict[str, Any], options: Options) -> None:
    """What the handler gets is what its dataclass declares, at every depth."""
    assert build_options(Kit, values) == options


def test_handler_without_options_gets_none() -> None:
    assert build_options(Echo, {}) is None


def test_search_through_the_installed_packages_is_spared_when_a_reference_is_pinned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """importlib.metadata costs a worker 3 MiB."""
    monkeypatch.setattr(plugins, "installed", lambda: pytest.fail("searched"))
    assert load_handler("gaiod.handlers.echo:Echo") is Echo


# -- options that are one thing or another -----------------------------------------------------------------


@dataclass
class Place:
    """A place to connect to, in detail."""

    address: str


@dataclass
class Several:
    """Options that are one thing or another."""

    places: list[str | Place] = field(default_factory=list)
    limit: int | str | None = None
    either: tuple[int, ...] | dict[str, Place] | None = None


def test_item_that_may_be_text_or_a_mapping_becomes_what_it_is() -> None:
    class Many(Handler):
        Options = Several

    options = build_options(Many, {"places": ["a", {"address": "b"}], "limit": 5, "either": [1, 2]})
    assert options == Several(["a", Place("b")], 5, (1, 2))
    assert build_options(Many, {"limit": "none", "either": {"a": {"address": "c"}}}) == Several(
        [], "none", {"a": Place("c")}
    )


@dataclass
class Named:
    name: str
    wide: bool = False


@dataclass
class Choice:
    one: Place | Named | list[Place | Named]


class Choosing(Handler):
    """Its option is one of two dataclasses, or a list of such."""

    Options = Choice


def test_mapping_becomes_the_dataclass_that_requires_only_what_it_has() -> None:
    assert build_options(Choosing, {"one": {"name": "a", "wide": True}}) == Choice(Named("a", wide=True))
    values = {"one": [{"name": "a"}, {"address": "b"}]}
    assert build_options(Choosing, values) == Choice([Named("a"), Place("b")])
