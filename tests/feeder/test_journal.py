"""The journal: what one feeder leaves behind is what the next one finds, whenever the first was killed."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from e2e.support.waiting import wait_until

from gaiod.feeder import journal as module
from gaiod.feeder.journal import Journal, Position, check_position
from gaiod.supervisor.processes.slots import anonymous_file


class Left:
    """Memory that a supervisor holds, and one journal after the other in it."""

    def __init__(self) -> None:
        self.fd = anonymous_file("journal")
        self._last: Journal | None = None

    def open(self) -> Journal:
        """Return the journal of the next feeder. The one before it wrote nothing at its end."""
        if self._last is not None:
            self._last.close()
        self._last = Journal(os.dup(self.fd))
        assert self._last.lock()
        return self._last

    def close(self) -> None:
        """Let go of it."""
        if self._last is not None:
            self._last.close()
        os.close(self.fd)


@pytest.fixture
def left() -> Iterator[Left]:
    """Memory in which no feeder has been."""
    with closing(Left()) as left:
        yield left


def _add(
    journal: Journal, sequence: int, text: str = "", *, topic: str = "t", position: Position | None = None
) -> None:
    journal.add("ticks", sequence, topic, text.encode() or b"%d" % sequence, position)


def test_next_feeder_knows_sequences_positions_and_messages(left: Left) -> None:
    journal = left.open()
    _add(journal, 1, position=("file", "10"))
    _add(journal, 2, topic="u")
    journal.add("news", 1, "t", b"other", None)
    journal.move("ticks", ("stream", "5-0"))
    journal.move("ticks", ("file", "20"))
    after = left.open()
    assert after.sequences == {"ticks": 2, "news": 1}
    assert [after.position("ticks", origin) for origin in ("file", "stream", "other")] == ["20", "5-0", None]
    assert after.position("nobody", "file") is None
    assert after.messages("ticks", 0) == [(1, "t", b"1"), (2, "u", b"2")]
    assert after.messages("ticks", 1) == [(2, "u", b"2")]
    assert after.last_messages("news") == [(1, "t", b"other")]


def test_empty_message_is_a_message(left: Left) -> None:
    left.open().add("ticks", 1, "t", b"", None)
    assert left.open().messages("ticks", 0) == [(1, "t", b"")]


def test_last_message_of_a_topic_outlives_those_that_are_recent(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECENT_MAX_BYTES", 1000)
    monkeypatch.setattr(module, "GROWTH_BYTES", 2000)
    journal = left.open()
    _add(journal, 1, "old", topic="quiet")
    for sequence in range(2, 200):
        _add(journal, sequence)
    for each in journal, left.open():
        assert each.last_messages("ticks") == [(1, "quiet", b"old"), (199, "t", b"199")]
        found = each.messages("ticks", 0)
        assert found[0] == (1, "quiet", b"old")
        assert [sequence for sequence, _, _ in found[1:]] == list(range(found[1][0], 200))
        assert 1 < len(found) < 7


def test_last_messages_have_a_bound_and_the_oldest_goes_first(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LAST_MAX_BYTES", 1000)
    journal = left.open()
    for number, topic in enumerate("abcdefa", 1):
        _add(journal, number, topic=topic)
    assert [topic for _, topic, _ in journal.last_messages("ticks")] == ["d", "e", "f", "a"]
    assert journal.forgotten == 3
    journal.keep_last("ticks", False)
    _add(journal, 8)
    assert journal.last_messages("ticks") == []


def test_longest_message_is_kept_alone(left: Left) -> None:
    journal = left.open()
    for sequence in range(1, 20):
        journal.add("ticks", sequence, "t", bytes(16 << 20), None)
    after = left.open()
    assert [sequence for sequence, _, _ in after.messages("ticks", 0)] == [19]
    assert after.sequences == {"ticks": 19}


def test_positions_have_a_bound_and_the_one_that_moved_longest_ago_goes_first(
    left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ORIGINS_MAX", 2)
    journal = left.open()
    for origin in "aba", "c":
        for each in origin:
            journal.move("ticks", (each, "1"))
    assert [journal.position("ticks", each) for each in "abc"] == ["1", None, "1"]


def test_listener_that_is_gone_is_forgotten(left: Left) -> None:
    journal = left.open()
    _add(journal, 1, position=("file", "10"))
    journal.add("news", 1, "t", b"stays", None)
    journal.forget_others({"news"})
    for each in journal, left.open():
        assert each.sequences == {"news": 1}
        assert each.position("ticks", "file") is None
        assert each.messages("ticks", 0) == []
        assert each.messages("news", 0) == [(1, "t", b"stays")]


def test_journal_of_another_version_is_empty(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    _add(left.open(), 1)
    monkeypatch.setattr(module, "_VERSION", 2)
    assert left.open().sequences == {}


def test_position_that_is_too_long_or_of_nothing_is_refused() -> None:
    check_position(("a", "x" * module.POSITION_MAX_BYTES))
    with pytest.raises(ValueError, match=r"has 4097 bytes; give at most 4096"):
        check_position(("a", "x" * (module.POSITION_MAX_BYTES + 1)))
    with pytest.raises(ValueError, match="name what is read"):
        check_position(("", "x"))


WRITES = """
import os, sys
from gaiod.feeder import journal as module
module.RECENT_MAX_BYTES, module.GROWTH_BYTES = 20_000, 30_000
journal = module.Journal(int(sys.argv[1]))
while not journal.lock():
    pass
sequence = journal.sequences.get("ticks", 0)
assert journal.position("ticks", "numbers") == (str(sequence) if sequence else None)
assert not sequence or journal.messages("ticks", sequence - 1) == [(sequence, "t", b"%d" % sequence)]
print("locked", flush=True)
while True:
    sequence += 1
    journal.add("ticks", sequence, "t", b"%d" % sequence, ("numbers", str(sequence)))
"""


def _writer(left: Left) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WRITES, str(left.fd)]
    return subprocess.Popen(command, pass_fds=[left.fd], stdout=subprocess.PIPE)


def test_writer_that_is_killed_at_any_moment_leaves_a_message_with_its_position_or_neither(left: Left) -> None:
    dice = random.Random(7)
    before = 0
    for _ in range(12):
        with _writer(left) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"locked\n"
            time.sleep(dice.uniform(0, 0.03))  # any moment will do
            writer.send_signal(signal.SIGKILL)
        journal = left.open()
        sequence = journal.sequences.get("ticks", 0)
        assert sequence >= before
        if sequence:
            assert journal.position("ticks", "numbers") == str(sequence)
            numbers = [int(data) for _, _, data in journal.messages("ticks", 0)]
            assert numbers == list(range(numbers[0], sequence + 1))
        before = sequence
        journal.close()
        left._last = None
    assert before > 0


def test_one_process_writes_at_a_time(left: Left) -> None:
    with _writer(left) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"locked\n"
        with closing(Journal(os.dup(left.fd))) as waiting:
            assert not waiting.lock()
            writer.kill()
            wait_until(waiting.lock, "the other's end")
            _add(waiting, 1_000_000)


def test_listener_that_comes_back_after_it_was_forgotten_is_a_new_one(
    left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GROWTH_BYTES", 2000)
    journal = left.open()
    _add(journal, 5, position=("file", "10"))
    journal.forget_others(())
    _add(journal, 1, position=("other", "20"))
    for number in range(100):
        journal.move("news", ("file", str(number)))
    for each in journal, left.open():
        assert each.sequences == {"ticks": 1, "news": 0}
        assert [each.position("ticks", origin) for origin in ("file", "other")] == [None, "20"]
        assert each.messages("ticks", 0) == [(1, "t", b"1")]
