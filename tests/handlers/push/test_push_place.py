"""Places in files: what stands before them is what was read, or the file is another one."""

from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import pytest
from gaiod.handlers.push.sources.place import TAIL_MAX_BYTES, Place


@pytest.fixture
def file(tmp_path: Path) -> Iterator[FileIO]:
    """A file of 26 bytes."""
    with FileIO(tmp_path / "file", "w+") as file:
        file.write(b"abcdefghijklmnopqrstuvwxyz")
        yield file


def test_reading_goes_on_where_it_was(file: FileIO) -> None:
    place = Place(file.fileno(), 20)
    assert place.read(4) == b"uvwx"
    place.advance(b"uvwx")
    assert (place.read(4), place.is_intact()) == (b"yz", True)
    place.advance(b"yz")
    assert (place.read(4), place.is_intact()) == (b"", True)
    place.rewind()
    assert (place.read(4), place.is_intact()) == (b"abcd", True)


@pytest.mark.parametrize(("at", "is_intact"), [(0, False), (19, False), (20, True), (25, True)])
def test_what_was_read_must_not_change(file: FileIO, at: int, is_intact: bool) -> None:
    place = Place(file.fileno(), 20)
    file.seek(at)
    file.write(b"!")
    assert place.is_intact() == is_intact


@pytest.mark.parametrize(("size", "is_intact"), [(0, False), (19, False), (20, True)])
def test_what_was_read_must_still_be_there(file: FileIO, size: int, is_intact: bool) -> None:
    place = Place(file.fileno(), 20)
    file.truncate(size)
    assert place.is_intact() == is_intact


def test_another_process_finds_the_place_if_what_stands_before_it_is_the_same(file: FileIO, tmp_path: Path) -> None:
    place = Place(file.fileno(), 10)
    place.advance(b"klmnop")
    text = place.text
    found = Place.kept(file.fileno(), text)
    assert found is not None
    assert (found.read(4), found.text) == (b"qrst", text)
    with FileIO(tmp_path / "other", "w+") as other:
        other.write(b"abcdefghijklmnopqrstuvwxyz")
        assert Place.kept(other.fileno(), text) is None, "another file"
    file.truncate(15)
    assert Place.kept(file.fileno(), text) is None, "a shorter one"
    file.seek(0)
    file.write(b"abcdefghijklmno!qrst")
    assert Place.kept(file.fileno(), text) is None, "another text"


def test_no_more_than_a_tail_is_remembered(file: FileIO) -> None:
    file.write(bytes(2 * TAIL_MAX_BYTES))
    place = Place(file.fileno(), 26)
    place.advance(place.read(1 << 20))
    file.seek(0)
    file.write(b"!")
    assert place.is_intact()
    file.seek(26 + TAIL_MAX_BYTES)
    file.write(b"!")
    assert not place.is_intact()
