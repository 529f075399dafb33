"""The memory of connections that closed."""

import tracemalloc

import pytest

from gaiod.core.sockets import name_of_peer
from gaiod.stats import closes as module
from gaiod.stats.closes import FILE_BYTES, Writer, compacted, count, ending_of, find

PEER = name_of_peer(("192.0.2.1", 5000))
IDLE = ("idle", "gaiod", "timeout", "idle_timeout", "data")


class Memory:
    """Some memory, and who writes into it."""

    def __init__(self, entries: int = module.CLOSINGS_MAX) -> None:
        self.memory = bytearray(FILE_BYTES)
        self.writer = Writer(self.memory, 2, entries)

    def add(
        self,
        serial: int,
        ending: tuple[str, ...] = IDLE,
        server: str | None = None,
        instance: int = 3,
        listener: str = "a",
    ) -> None:
        times, moved = (10.0, 70.0), (7, 9)
        self.writer.add((instance, serial), times, moved, listener=listener, server=server, ending=ending, peer=PEER)

    @property
    def image(self) -> bytes:
        return bytes(self.memory)

    def known(self, *serials: int) -> list[int]:
        return [serial for serial in serials if find(self.image, f"3-{serial}", 80.0)]


def test_connection_is_found_by_its_name_alone() -> None:
    memory = Memory()
    memory.add(5)
    memory.add(5, instance=4, listener="b")
    found = [find(memory.image, name, 75.0) for name in ("3-5", "4-5")]
    assert [each and each["listener"] for each in found] == ["a", "b"]
    for name in ("3-6", "5-5", "3-0", "0-0"):
        assert find(memory.image, name, 75.0) is None


def test_oldest_is_forgotten_for_the_newest() -> None:
    memory = Memory(3)
    for serial in range(1, 5):
        memory.add(serial)
    assert memory.known(1, 2, 3, 4) == [2, 3, 4]


def test_ends_for_the_same_reason_are_told_apart_by_who_how_where_and_with_which_server() -> None:
    memory = Memory()
    ends = [
        (("no_server", "server", "error", "down", "queue"), None),
        (("no_server", "gaiod", "timeout", "queue_timeout", "queue"), "a:1"),
        (("no_server", "server", "error", "connect_refused", "connect"), "b:1"),
    ]
    for serial, (ending, server) in enumerate(ends * 2, 1):
        memory.add(serial, ending, server)
    for serial, (ending, server) in enumerate(ends * 2, 1):
        found = find(memory.image, f"3-{serial}", 80.0)
        assert found is not None
        assert {**ending_of(ending), "server": server}.items() <= found.items()


def test_ending_without_a_cause_tells_none() -> None:
    assert ending_of(("bored", "handler", "close", "", "data")) == {
        "reason": "bored", "who": "handler", "how": "close", "phase": "data",
    }  # fmt: skip


def test_reason_of_a_handlers_own_is_kept_and_too_many_of_them_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WORDS_MAX", 1)
    memory = Memory()
    for serial, reason in enumerate(("bored", "tired"), 1):
        memory.add(serial, (reason, "handler", "close", "", "data"))
    found = [find(memory.image, f"3-{serial}", 80.0) for serial in (1, 2)]
    assert [each and each["reason"] for each in found] == ["bored", "handler"]


def test_words_take_no_more_than_their_room() -> None:
    memory = Memory()
    long = "x" * (module.WORDS_BYTES // 3)
    for serial in range(1, 6):
        memory.add(serial, (f"{serial}{long}", *IDLE[1:]), server="s")
    found = [find(memory.image, f"3-{serial}", 80.0) for serial in range(1, 6)]
    assert [each and each["reason"][:7] for each in found] == ["1xxxxxx", "2xxxxxx", "handler", "handler", "handler"]
    assert [each and each["server"] for each in found] == ["s"] * 5


def test_many_servers_do_not_cost_a_listener_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WORDS_MAX", 2)
    memory = Memory()
    for serial, server in enumerate(("one", "two"), 1):
        memory.add(serial, server=server)
    found = [find(memory.image, f"3-{serial}", 80.0) for serial in (1, 2)]
    assert [each and (each["listener"], each["server"]) for each in found] == [("a", "one"), ("a", "two")]


def test_memory_is_that_of_the_ring_however_many_close() -> None:
    memory = Memory(100)
    memory.add(1)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for serial in range(2, 1000):
            memory.add(serial)
        assert tracemalloc.get_traced_memory()[0] < before + 20_000, "998 more of them take nothing"
    finally:
        tracemalloc.stop()


def test_compacted_image_says_the_same_in_less_room() -> None:
    memory = Memory()
    for serial in range(1, 11):
        memory.add(serial, server=f"10.0.0.{serial}:80")
    short = compacted(memory.image)
    assert len(short) < 2000
    assert count(short) == 10
    for serial in range(12):
        assert find(short, f"3-{serial}", 80.0) == find(memory.image, f"3-{serial}", 80.0)
    assert compacted(short) == short


@pytest.mark.parametrize("image", [b"", bytes(FILE_BYTES), b"closes99" + bytes(FILE_BYTES - 8), Memory().image])
def test_nothing_is_kept_of_memory_without_a_connection_or_of_another_format(image: bytes) -> None:
    assert compacted(image) == b""
    assert find(image, "3-1", 80.0) is None
