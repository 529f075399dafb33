"""The files that people start from."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from gaiod.config import load
from gaiod.config.schema import Config, Listener, Metrics
from gaiod.runtime.handler import Handler
from gaiod.runtime.settings import ListenerSettings, Settings

CONFIG = Path(__file__).parents[2] / "config"
DEFAULTS = Settings((ListenerSettings("echo", "127.0.0.1:7000", "echo"),))

Loader = Callable[[str], type[Handler]]


def test_reference_loads_to_exactly_the_defaults(load_handler: Loader) -> None:
    assert load(CONFIG / "reference.yaml", load_handler=load_handler) == DEFAULTS


def test_reference_names_every_key_and_says_when_to_change_it() -> None:
    text = (CONFIG / "reference.yaml").read_text()
    fields = [field for model in (Config, Metrics, Listener) for field in model.model_fields.items()]
    for key in (field.alias or name for name, field in fields):
        assert re.search(rf"^ *{key}:", text, re.MULTILINE), key
    tuned = set(Listener.model_fields) - {"bind", "handler", "options"} | {"workers", "listen"}
    for key in tuned:
        above = re.search(rf"((?:^ *#.*\n)+) *{key}:", text, re.MULTILINE)
        assert above, key
        assert re.search(r"Change it|Raise|Lower", above[1]), key


def test_small_default_loads_to_the_defaults_too(load_handler: Loader) -> None:
    assert load(CONFIG / "gaiod.yaml", load_handler=load_handler) == DEFAULTS


@pytest.mark.parametrize("file", sorted((CONFIG / "examples").glob("*.[yj]*")), ids=lambda file: file.name)
def test_example_loads(file: Path, load_handler: Loader) -> None:
    assert load(file, load_handler=load_handler).listeners


def test_example_of_a_handler_of_ones_own_means_the_file_beside_it(load_handler: Loader) -> None:
    settings = load(CONFIG / "examples" / "shout.yaml", load_handler=load_handler)
    assert settings.listeners[0].handler == str(CONFIG / "examples" / "shout.py")
