"""The memory that limits are counted in: every part has its place."""

from gaiod.stats import tally_layout as layout


def test_seats_lie_behind_the_head_and_apart() -> None:
    assert layout.start_of(0) == layout.HEAD_BYTES
    assert layout.start_of(2) - layout.start_of(1) == layout.SEAT_BYTES
    assert layout.start_of(1) % 8 == 0


def test_head_says_what_has_changed_and_whose_the_seats_are() -> None:
    packed = layout.HEAD.pack(layout.MAGIC, 1, 2, b"secret")
    cells = memoryview(packed).cast("q")
    assert cells[layout.CHANGES : layout.CHANGES + 2].tolist() == [1, 2]
    assert packed[layout.SECRET].startswith(b"secret")
    assert layout.HEAD_BYTES == 8 * (layout.OWNERS + layout.SEATS_MAX)


def test_secret_is_long_enough_for_what_is_hashed() -> None:
    length = layout.SECRET.stop - layout.SECRET.start
    assert 8 * (length - 2 * layout.FACTOR_BYTES) >= layout.NAME_BITS + 8 * layout.FACTOR_BYTES
