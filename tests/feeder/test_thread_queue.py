"""What other threads publish, in a queue, and how long they wait."""

from collections.abc import Iterator

import pytest

from feeder.support.feeding import Feeding, Played
from gaiod.feeder.worker_links import BEHIND_BYTES

MESSAGE = bytes(32 * 1024)


@pytest.fixture
def feeding() -> Iterator[Feeding]:
    """Router of one listener, `ticks`, with the sources `one` and `two`."""
    feeding = Feeding()
    feeding.feeds.run([feeding.wanted("ticks", "one", "two")])
    yield feeding
    feeding.close()


def test_messages_of_a_thread_arrive_in_their_order(feeding: Feeding) -> None:
    worker = feeding.worker(ticks="key")

    def publish() -> None:
        for number in range(5000):
            Played.made["one"].publish(b"%d" % number)

    thread = feeding.run_in_thread(publish)
    assert [data for _, data in feeding.messages(worker, 5000)] == [b"%d" % number for number in range(5000)]
    thread.join()
    assert thread.error is None


def test_threads_wait_for_workers_and_so_hold_no_more_than_a_link_may_be_behind(feeding: Feeding) -> None:
    worker = feeding.worker(ticks="key")
    total = 40 * BEHIND_BYTES // len(MESSAGE)

    def publish(name: str) -> None:
        for _ in range(total):
            Played.made[name].publish(MESSAGE)

    threads = [feeding.run_in_thread(lambda name=name: publish(name)) for name in ("one", "two")]  # type: ignore[misc]
    taken = 0
    while taken < 2 * total:
        taken += len(feeding.messages(worker, 1))
        held = sum(link.waiting_bytes for link in feeding.feeds.links._links)
        assert held < 4 * BEHIND_BYTES
    for thread in threads:
        thread.join()
        assert thread.error is None


def test_thread_that_waits_goes_on_at_once_when_its_source_is_stopped(feeding: Feeding) -> None:
    feeding.worker(ticks="key")
    published = []

    def publish() -> None:
        for _ in range(1000):
            Played.made["one"].publish(MESSAGE)
            published.append(1)

    thread = feeding.run_in_thread(publish)
    feeding.step_until(lambda: feeding.feeds.is_behind, "the worker being behind")
    feeding.feeds.run([])
    thread.join()
    assert thread.error is None
    assert len(published) == 1000, "what it publishes now goes to nobody, and waits for none"


def test_thread_is_told_what_is_refused(feeding: Feeding) -> None:
    thread = feeding.run_in_thread(lambda: Played.made["one"].publish(b"refuse"))
    thread.join()
    assert str(thread.error) == "it is refused; publish another"
    assert feeding.count("ticks", "one", "refused") == 1
