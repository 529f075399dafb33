"""Subscribers that never read, or stop in the middle of a message: they cost what their policy says, and no more."""

import time

import pytest
from e2e.support.daemons import Daemon
from e2e.support.procfs import resident_bytes
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

from chaos.support.audience import Audience, Script, percentile_s, read_on
from chaos.support.daemons import workers_of
from chaos.support.pushing import Channel, deliveries, dropped, pushed, take_what_waits, wait_for_subscribers

pytestmark = [pytest.mark.chaos, pytest.mark.quiet]

LIMIT_BYTES = 64 << 10
"""Of what may wait for a subscriber."""

PARCEL_BYTES = 128
"""What a message costs beside its bytes while it waits."""

GROWTH_MAX_BYTES = 3 << 20
"""What a worker may take more than its queues hold: the allocator's reserves. Less than what is published."""

REASONS = {"disconnect": "disconnect", "drop_oldest": "oldest", "drop_newest": "newest", "latest_only": "replaced"}
"""The policies, and what the messages are counted as that they drop."""


def with_(policy: str) -> str:
    """Return the options of a policy; the grace is longer than the test, so that it is the limit that counts."""
    more = ", grace: 60s" if policy == "disconnect" else ""
    return f"slow_consumer: {{policy: {policy}, limit: {LIMIT_BYTES}{more}}}"


def publish(audience: Audience, script: Script, channel: Channel, messages: int, size: int, batch: int = 8) -> None:
    """Publish messages, a batch once all fast subscribers have the one before."""
    for _ in range(messages // batch):
        channel.publish(b"".join(script.write(size) for _ in range(batch)))
        audience.read_until(len(script.lines) - 1)


def publish_at_rate(
    audience: Audience, script: Script, channel: Channel, messages: int, size: int, rate: float
) -> None:
    """Publish messages steadily, the fast subscribers reading meanwhile."""
    begun_s = time.monotonic()
    for number in range(messages):
        while (left_s := begun_s + number / rate - time.monotonic()) > 0:
            audience.read(left_s)
        channel.publish(script.write(size))
        audience.read()
    audience.read_until(len(script.lines) - 1)


def check_bounds(running: Daemon, slow: int, size: int) -> None:
    """Check that no more waits than the limits allow; messages that many wait for are held once."""
    samples = running.scrape()
    queued = samples.value("gaiod_push_queued_bytes", listener="ticks")
    held = samples.value("gaiod_push_held_bytes", listener="ticks")
    assert queued <= slow * LIMIT_BYTES
    assert held <= slow * LIMIT_BYTES * (1 + PARCEL_BYTES / size)


def check_outcome(running: Daemon, audience: Audience, policy: str, published: int) -> None:
    """Check what became of the slow ones, and that the counters say what the clients have got."""
    fast, slow = len(audience.fast), len(audience.slow)
    if policy == "disconnect":
        wait_for_subscribers(running, fast)
        samples = running.scrape()
        closed = samples.value("gaiod_connections_closed_total", listener="ticks", reason="slow_consumer")
        assert closed == slow
    for each in audience.slow:
        read_on(each, published - 1)
        assert each.numbers[0] == 0
        assert each.ended == (policy == "disconnect")
        assert each.is_rest_the_begin_of_a_message
        assert (each.rest == b"") or each.ended
        if policy == "disconnect":
            assert each.gaps == [], "it got everything up to where it was cut off"
        else:
            assert each.numbers[-1] == published - 1
    got = sum(len(each.numbers) for each in audience)
    wait_until(lambda: deliveries(running.scrape()) == got, "deliveries that are what clients have got")
    lost = dropped(running.scrape())
    assert set(lost) == {REASONS[policy]}
    if policy == "disconnect":
        assert got + sum(lost.values()) < published * (fast + slow), "what came later was not for them"
    else:
        assert got + sum(lost.values()) == published * (fast + slow)


@pytest.mark.parametrize("policy", REASONS)
def test_subscribers_that_never_read_cost_what_their_policy_says_and_fast_ones_nothing(
    daemon: Start, policy: str
) -> None:
    """No message is lost by who reads, and what waits for the others never exceeds the limit."""
    fast, slow, messages, size = 100, 10, 512, 8192
    script = Script()
    with (
        pushed(daemon, with_(policy)) as (running, channel),
        Audience(running.address("ticks"), script, fast, slow) as audience,
    ):
        wait_for_subscribers(running, fast + slow)
        (worker,) = workers_of(running)
        before = resident_bytes(worker)
        for _ in range(4):
            publish(audience, script, channel, messages // 4, size)
            check_bounds(running, slow, size)
            assert resident_bytes(worker) - before < GROWTH_MAX_BYTES + slow * LIMIT_BYTES
        if policy == "drop_newest":
            take_what_waits(running, audience)
            publish(audience, script, channel, 8, size)
        assert all(list(each.numbers) == list(range(len(script.lines))) for each in audience.fast)
        check_outcome(running, audience, policy, len(script.lines))


RATE = 50.0
"""Messages a second of the long form. A thousand subscribers make that 50,000 deliveries, each read and compared by
Python: with more, two shared cores measure the test and not the daemon."""

RATIO_MAX = 1.5
"""Of the 99th percentile with slow subscribers to that without: 1.2 is wanted, and the machine has other work."""


@pytest.mark.slow
@pytest.mark.parametrize("policy", REASONS)
def test_fast_subscribers_are_served_as_soon_when_others_never_read(daemon: Start, policy: str) -> None:
    """A thousand fast ones, before and after fifty come that never read: 1 KiB, 50 messages/s, 30 s in all.

    1,000 messages/s would be a million deliveries, which two cores cannot read, let alone compare; what the slow
    ones cost does not depend on how many fast ones there are, so the memory has a test of its own, at 1,000/s.
    """
    fast, slow, messages, size = 1000, 50, 750, 1024
    script = Script()
    with pushed(daemon, with_(policy)) as (running, channel):
        address = running.address("ticks")
        with Audience(address, script, fast) as audience:
            wait_for_subscribers(running, fast)
            publish_at_rate(audience, script, channel, 50, size, RATE)
            audience.forget_delays()
            publish_at_rate(audience, script, channel, messages, size, RATE)
            without_s = percentile_s(audience.fast, 0.99)
            audience.forget_delays()
            begun = len(script.lines)
            with Audience(address, script, 0, slow) as others:
                wait_for_subscribers(running, fast + slow)
                publish_at_rate(audience, script, channel, messages, size, RATE)
                assert percentile_s(audience.fast, 0.99) <= RATIO_MAX * without_s
                assert all(list(each.numbers) == list(range(len(script.lines))) for each in audience.fast)
                check_bounds(running, slow, size)
                for each in others.slow:
                    read_on(each, 0)
                    assert each.numbers[0] == begun


@pytest.mark.slow
@pytest.mark.parametrize("policy", REASONS)
def test_memory_is_bounded_by_the_policy_at_a_thousand_messages_a_second(daemon: Start, policy: str) -> None:
    """30 MiB are published, of which fifty fast subscribers get all, and fifty slow ones what their policy says."""
    fast, slow, messages, size = 50, 50, 30_000, 1024
    script = Script()
    with (
        pushed(daemon, with_(policy)) as (running, channel),
        Audience(running.address("ticks"), script, fast, slow) as audience,
    ):
        wait_for_subscribers(running, fast + slow)
        (worker,) = workers_of(running)
        before = resident_bytes(worker)
        for _ in range(30):
            publish_at_rate(audience, script, channel, messages // 30, size, 1000.0)
            check_bounds(running, slow, size)
            assert resident_bytes(worker) - before < GROWTH_MAX_BYTES + slow * LIMIT_BYTES
        if policy == "drop_newest":
            take_what_waits(running, audience)
            publish(audience, script, channel, 8, size)
        assert all(list(each.numbers) == list(range(len(script.lines))) for each in audience.fast)
        check_outcome(running, audience, policy, len(script.lines))
