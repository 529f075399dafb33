"""Channels of a Redis (pub/sub). Whoever is not connected misses what is published meanwhile."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import redis

from ...options import is_pattern
from .feed import Feed

TURN_S = 0.5
"""How long a wait for a message takes at most, and so how late it is noticed that the source was stopped."""

SILENT_S = 5.0
"""After so long without a word the Redis is asked whether it is there. Twice that without an answer, and it is not."""


class Channels:
    """Reads channels, and patterns of them. Under `origin` it is kept that they are read."""

    def __init__(self, names: Sequence[str], origin: str) -> None:
        self._origin = origin
        self._channels = [name for name in names if not is_pattern(name)]
        self._patterns = [name for name in names if is_pattern(name)]

    def read(self, client: Any, feed: Feed, began: Callable[[], None]) -> None:
        """Read until the feed ends; `began` is called once all is subscribed to.

        Raises:
            redis.RedisError, OSError: the connection does not work any more.
        """
        with closing(client.pubsub()) as pubsub:
            if self._channels:
                pubsub.subscribe(*self._channels)
            if self._patterns:
                pubsub.psubscribe(*self._patterns)
            self._read(pubsub, feed, began)

    def _read(self, pubsub: Any, feed: Feed, began: Callable[[], None]) -> None:
        missing = len(self._channels) + len(self._patterns)
        heard_s = asked_s = time.monotonic()
        while not feed.is_ended:
            message = pubsub.get_message(timeout=TURN_S)
            now_s = time.monotonic()
            if message is None:
                if now_s - heard_s > 2 * SILENT_S:
                    raise redis.ConnectionError("it does not answer")
                if now_s - max(heard_s, asked_s) > SILENT_S:
                    pubsub.ping()
                    asked_s = now_s
                continue
            heard_s = now_s
            match message["type"]:
                case "message" | "pmessage":
                    feed.publish(message["channel"], message["data"])
                    heard_s = time.monotonic()  # publishing may have waited for the workers
                case "subscribe" | "psubscribe":
                    missing -= 1
                    if missing == 0:
                        self._began(feed, began)

    def _began(self, feed: Feed, began: Callable[[], None]) -> None:
        # There is no position in a channel: only that it was read before, be it by another feeder.
        if feed.outlet.position(self._origin) is not None:
            feed.outlet.gap("there was no connection: what was published in its channels meanwhile is missing")
        feed.outlet.keep(self._origin, "read")
        began()
