"""Where messages come from. These run in the feeder, one of each for a whole daemon; no worker imports them."""

from collections.abc import Callable
from typing import Any

from gaiod import Source, shown

from ..options import EveryOptions, FeedKind, HttpOptions, LinesOptions, PushOptions, RedisOptions
from .every import EverySource
from .lines import LinesSource

TIME_MAX_S, SEQUENCE_MAX = 1e10, 10**15
"""More digits than a message made here can have: it must be possible in a thousand years, too."""

Encode = Callable[[Any, str, bytes], bytes]
"""As `Handler.encode_message`."""


def source_of(feed: FeedKind, options: PushOptions, encode: Encode) -> Source:
    """Make a source, as its options say.

    Raises:
        ValueError: it cannot work; the text says why and what to do.
    """
    topic = options.topic_of(feed)
    suffix = _suffix_of(feed, options)
    match feed:
        case EveryOptions():
            assert topic is not None  # the options refuse it
            try:
                encode(options, topic, feed.render(TIME_MAX_S, SEQUENCE_MAX))
            except ValueError as error:
                raise ValueError(f"source {feed.label}: its message {error}; write another one") from None
            return EverySource(feed, topic)
        case LinesOptions():
            assert topic is not None
            return LinesSource(feed, topic, options.message_max_bytes, suffix)
        case HttpOptions():
            from .http import HttpSource  # late: h11 is not for everybody who checks a configuration

            return HttpSource(feed, topic, options.message_max_bytes, options.offered)
        case RedisOptions():
            return _redis_source(feed, topic, suffix)


def _suffix_of(feed: FeedKind, options: PushOptions) -> str:
    """Return what stands behind the places of a source where its positions are kept.

    Nothing, whatever its other options are. Of several that read the same place, it is so for the first.
    """
    taken: set[str] = set()
    for each in options.feeds:
        if each is feed:
            break
        taken.update(each.places)
    return "" if taken.isdisjoint(feed.places) else f" {feed.label}"


def _redis_source(feed: RedisOptions, topic: str | None, suffix: str) -> Source:
    try:
        from .redis import RedisSource  # late: an extra
    except ModuleNotFoundError as error:
        if error.name != "redis":
            raise
        raise ValueError(
            f"source {shown(feed.label)} needs redis-py, which is not installed; pip install 'gaiod[redis]'"
        ) from None
    return RedisSource(feed, topic, suffix)
