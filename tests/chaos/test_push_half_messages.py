"""Subscribers that stop reading in the middle of a message: what they get later is its rest, and then a whole one."""

from contextlib import suppress

import pytest
from core.support.waiting import TIME_UNIT
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

from chaos.support.audience import Audience, Listener, Script, read_on
from chaos.support.pushing import deliveries, dropped, pushed, take_what_waits, wait_for_subscribers

pytestmark = pytest.mark.chaos

SIZES = (60_000, 50, 20_011, 1400, 33_333, 8192)
"""Of the messages, in turn: some are longer than what a slow client's kernel takes."""

SIPS = (1, 7, 701, 1399, 4096, 29_989)
"""How many bytes a client takes at a time, before it stops."""


def _sip(each: Listener, size: int) -> None:
    """Read exactly so many bytes, if as many come: with latest_only there may be fewer for it."""
    each.sock.settimeout(TIME_UNIT)
    with suppress(TimeoutError):
        while size > 0 and (got := each.read(size)):
            size -= got


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "latest_only"])
def test_half_a_message_is_followed_by_its_other_half_whatever_was_dropped(daemon: Start, policy: str) -> None:
    """Every client stops somewhere else, and goes on when messages behind that one have been dropped."""
    script = Script()
    options = f"slow_consumer: {{policy: {policy}, limit: 64KiB}}"
    with (
        pushed(daemon, options) as (running, channel),
        Audience(running.address("ticks"), script, 2, len(SIPS)) as audience,
    ):
        wait_for_subscribers(running, 2 + len(SIPS))
        halves = 0
        for _ in range(6):
            for size in SIZES:
                channel.publish(script.write(size))
            audience.read_until(len(script.lines) - 1)
            for each, sip in zip(audience.slow, SIPS, strict=True):
                _sip(each, sip)
                halves += each.rest != b""
        assert halves > len(SIPS)
        assert sum(dropped(running.scrape()).values()) > len(SIPS)
        take_what_waits(running, audience)
        channel.publish(script.write(100))
        audience.read_until(len(script.lines) - 1)
        for each in audience.slow:
            read_on(each, len(script.lines) - 1)
            assert (each.rest, each.ended) == (b"", False)
        got = sum(len(each.numbers) for each in audience)
        wait_until(lambda: deliveries(running.scrape()) == got, "deliveries that are what clients have got")
        assert got + sum(dropped(running.scrape()).values()) == len(script.lines) * (2 + len(SIPS))


def test_client_that_is_disconnected_in_the_middle_of_a_message_gets_nothing_behind_it(daemon: Start) -> None:
    script = Script()
    options = "slow_consumer: {policy: disconnect, limit: 64KiB, grace: 60s}"
    with (
        pushed(daemon, options) as (running, channel),
        Audience(running.address("ticks"), script, 2, len(SIPS)) as audience,
    ):
        wait_for_subscribers(running, 2 + len(SIPS))
        channel.publish(script.write(60_000))
        for each, sip in zip(audience.slow, SIPS, strict=True):
            _sip(each, sip)
        for number in range(10):
            channel.publish(script.write(60_000 + number))
            audience.read_until(len(script.lines) - 1)
        wait_for_subscribers(running, 2)
        for each in audience.slow:
            read_on(each, len(script.lines))
            assert each.ended
            assert each.rest, "it was cut off in a message"
            assert each.is_rest_the_begin_of_a_message
            assert each.gaps == []
        got = sum(len(each.numbers) for each in audience)
        assert deliveries(running.scrape()) == got
