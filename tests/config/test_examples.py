"""The files that people start from."""

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from core.support.tls import certificate

from gaiod.config import load, loads
from gaiod.config.errors import Keys, Report, dotted
from gaiod.config.reader import Section
from gaiod.config.schema import CONFIG as EVERYTHING
from gaiod.config.schema import LISTENER
from gaiod.config.yaml import read_document
from gaiod.handler.handler import Handler
from gaiod.settings import ListenerSettings, Settings

CONFIG = Path(__file__).parents[2] / "config"
DEFAULTS = Settings((ListenerSettings("echo", "127.0.0.1:7000", "echo"),))

Loader = Callable[[str], type[Handler]]


def test_reference_loads_to_exactly_the_defaults(load_handler: Loader) -> None:
    assert load(CONFIG / "reference.yaml", load_handler=load_handler) == DEFAULTS


def keys_of(section: Section, above: Keys = ()) -> Iterator[Keys]:
    for name, key in section.keys.items():
        yield (*above, name)
        if isinstance(key.kind, Section):
            yield from keys_of(key.kind, (*above, name))


@pytest.mark.parametrize("keys", [*keys_of(EVERYTHING), *keys_of(LISTENER, ("listeners", "echo"))], ids=dotted)
def test_reference_names_every_key_and_says_when_to_change_it(keys: Keys) -> None:
    text = (CONFIG / "reference.yaml").read_text()
    document = read_document(text, Report("reference.yaml"))
    assert document
    assert keys in document.keys
    section = any(other[:-1] == keys for other in document.keys)
    if not section and keys[-1] not in ("bind", "handler", "with"):
        above = text.splitlines()[: document.place_of_key(keys).line - 1]
        comment = list(itertools.takewhile(lambda line: line.lstrip().startswith("#"), reversed(above)))
        assert re.search(r"Change it|Raise|Lower", "\n".join(comment))


def test_reference_fits_a_screen_in_width() -> None:
    assert all(len(line) <= 120 for line in (CONFIG / "reference.yaml").read_text().splitlines())


def test_small_default_loads_to_the_defaults_too(load_handler: Loader) -> None:
    assert load(CONFIG / "gaiod.yaml", load_handler=load_handler) == DEFAULTS


@pytest.mark.parametrize("file", sorted((CONFIG / "examples").glob("*.[yj]*")), ids=lambda file: file.name)
def test_example_loads(file: Path, tmp_path: Path) -> None:
    """With the handlers it names: their options fit; and the certificates that it names, were they there."""
    text = file.read_text()
    made = certificate()
    for name in re.findall(r"/etc/gaiod/(\w+\.(?:pem|key))", text):
        (tmp_path / name).write_text(made.chain if name.endswith(".pem") else made.key)
    assert loads(text.replace("/etc/gaiod/", f"{tmp_path}/"), path=str(file), folder=file.parent).listeners


def test_example_of_a_handler_of_ones_own_means_the_file_beside_it(load_handler: Loader) -> None:
    settings = load(CONFIG / "examples" / "shout.yaml", load_handler=load_handler)
    assert settings.listeners[0].handler == str(CONFIG / "examples" / "shout.py")
