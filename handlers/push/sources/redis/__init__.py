"""Messages of a Redis: what is published in channels, or added to streams."""

import logging
import random
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from gaiod import Outlet

from ...addresses import without_password
from ...options import RedisOptions
from ..alike import AlikeSource
from .channels import Channels
from .feed import Feed
from .streams import Streams

log = logging.getLogger("gaiod.handler.push")

DELAY_FIRST_S, DELAY_MAX_S = 0.1, 10.0
"""How long it may take until the next try: drawn between 0 and a bound that begins with the first, is doubled by each
failure, and ends with the second. So the clients of a Redis that restarts do not all come at once."""

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 10.0
"""How long a Redis may take for an answer until it is taken for dead."""


class RedisSource(AlikeSource):
    """Reads channels or streams in a thread of its own, and connects again whenever it must."""

    def __init__(self, options: RedisOptions, topic: str | None, suffix: str) -> None:
        super().__init__(options, topic, suffix)
        self.name = options.label
        self._suffix = suffix
        self._options = options
        self._topic = topic
        self._end = threading.Event()

    def start(self, outlet: Outlet) -> None:
        outlet.up = False  # until it is connected
        self._end.set()
        self._end = threading.Event()
        reader = Reader(self._options, self._suffix, Feed(outlet, self._topic, self._end))
        threading.Thread(target=reader.run, name="gaiod-redis", daemon=True).start()

    def stop(self) -> None:
        self._end.set()


class Reader:
    """Connects, reads until that fails, and connects again: in a thread of its own."""

    def __init__(self, options: RedisOptions, suffix: str, feed: Feed) -> None:
        self._options = options
        self._feed = feed
        if options.streams:
            self._kind: Streams | Channels = Streams(
                options.streams, options.field, lambda name: options.place_of(name) + suffix
            )
        else:
            self._kind = Channels(options.channels, options.place_of(None) + suffix)
        self._where = f"source {options.label}: {without_password(options.redis)}"
        self._failures = 0  # in a row
        self._trouble = ""
        self._has_begun = False
        self._dice = random.Random()

    def run(self) -> None:
        """Read until the feed ends."""
        while not self._feed.is_ended:
            try:
                with closing(self._client()) as client:
                    self._kind.read(client, self._feed, self._began)
            except (redis.RedisError, OSError, UnicodeError) as error:
                self._failed(str(error).rstrip(".") or type(error).__name__)
            except Exception:
                log.exception("%s: reading failed; trying again", self._where)
                self._failed("")
            self._feed.wait(self._dice.uniform(0, min(DELAY_MAX_S, DELAY_FIRST_S * 2.0 ** min(self._failures - 1, 32))))
        self._feed.outlet.up = False

    def _client(self) -> Any:
        options: dict[str, Any] = {
            "protocol": 2,  # answers of the third are made of other types
            "retry": Retry(NoBackoff(), 0),  # what is tried again, and what may be missing then, is known here alone
            "socket_connect_timeout": CONNECT_TIMEOUT_S,
            "socket_timeout": ANSWER_TIMEOUT_S,
        }
        if self._options.password_file is not None:
            options["password"] = Path(self._options.password_file).read_text().rstrip("\n")
        return redis.Redis.from_url(self._options.redis, **options)

    def _began(self) -> None:
        """Take note that messages come, from now on."""
        if self._has_begun:
            self._feed.outlet.reconnected()
        if self._trouble or not self._has_begun:
            log.info("%s is read", self._where)
        self._has_begun = True
        self._failures = 0
        self._trouble = ""
        self._feed.outlet.up = True

    def _failed(self, trouble: str) -> None:
        """Take note that there is no connection, or none that works; say so once for each reason."""
        self._feed.outlet.up = False
        self._failures += 1
        if trouble != self._trouble:
            self._trouble = trouble
            log.warning("%s: %s; trying again", self._where, trouble)
