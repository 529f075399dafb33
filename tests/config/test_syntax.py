"""PyYAML's complaints in our words. Whole files with broken syntax: see refused/syntax-*.yaml."""

import pytest
import yaml
from yaml.error import Mark

from gaiod.config.errors import Place
from gaiod.config.syntax import TRANSLATIONS, explain, place_of_mark

BROKEN = {
    r"found character '\t'": "a:\n\tb: 1",
    "cannot start any token": "a: @x",
    "mapping values are not allowed": "a: b: c",
    "expected alphabetic or numeric character": "a: *:5433",
    "could not find expected ':'": "a: 1\nb",
    "expected <block end>": "a: 1\n- b",
    "expected ',' or '}'": "{a: 1 'b': 2}",
    "expected ',' or ']'": "['a' 'b']",
    "expected the node content": "a: ]",
    "sequence entries are not allowed": "a: - b",
    "expected '<document start>'": "{a: 1}}",
    "unknown escape character": r'a: "\q"',
}


def pyyaml_error(text: str) -> yaml.MarkedYAMLError:
    with pytest.raises(yaml.MarkedYAMLError) as caught:
        list(yaml.parse(text, Loader=yaml.SafeLoader))
    return caught.value


def test_every_translation_is_of_something_pyyaml_says() -> None:
    """A new version of PyYAML with new words must not silently lose ours."""
    assert list(BROKEN) == [part for part, _ in TRANSLATIONS]


@pytest.mark.parametrize("part", BROKEN)
def test_pyyaml_says_what_is_translated(part: str) -> None:
    text = BROKEN[part]
    error = pyyaml_error(text)
    assert part in (error.problem or "")
    _, message = explain(error, text, Mark("", 0, 0, 0, None, 0))
    assert str(error.problem) not in message
    assert "; " in message


@pytest.mark.parametrize(
    ("text", "place"),
    [("a: 1\nb: {c: 1\n", Place(2, 4)), ("a: 1\nb: [c\n", Place(2, 4)), ("a: 1\nb: 'c\n", Place(2, 4))],
)
def test_what_is_never_closed_is_shown_where_it_opens(text: str, place: Place) -> None:
    found, message = explain(pyyaml_error(text), text, Mark("", 0, 0, 0, None, 0))
    assert found == place
    assert "is opened here and never closed; close it" in message


def test_place_counts_from_one() -> None:
    assert place_of_mark(Mark("", 9, 2, 4, None, 0)) == Place(3, 5)
