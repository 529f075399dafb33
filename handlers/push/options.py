"""What `with:` may say: the dataclasses are its schema. config/push.yaml says when to change what."""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Annotated, Any, ClassVar, Literal

from gaiod import Check, Unit, parse_address, shown

from .addresses import check_bind, check_redis_url, has_password, without_password
from .framing import Framing
from .topics import check_topic

DEFAULT_TOPIC = "default"
GRACE_DEFAULT_S = 5.0
MESSAGE_MAX_BYTES = 16 << 20
"""With its frame: what the feeder hands to the workers in one piece."""

SOURCES_MAX = 64
"""Per listener: each has 7 series in the metrics."""

REDIS_NAMES_MAX = 64
"""Channels, patterns or streams of one source: all are read over one connection, in one thread."""

NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
PLACEHOLDERS = ("time", "sequence")


def _check_name(text: str) -> None:
    if NAME.fullmatch(text) is None:
        raise ValueError(f"{shown(text)} is not a name; write small letters, digits, - and _, such as ticks-2")
    if text == "publish":
        raise ValueError("the name publish is reserved for the control socket; write another name")


TopicText = Annotated[str, Check(check_topic)]
NameText = Annotated[str, Check(_check_name)]


@dataclass(frozen=True, kw_only=True)
class FeedOptions:
    """What every source may say."""

    kind: ClassVar[str]
    name: NameText | None = None
    topic: TopicText | None = None

    @property
    def label(self) -> str:
        """What metrics and logs call it."""
        return self.name or self.kind

    @property
    def places(self) -> Sequence[str]:
        """What it reads from a position on; positions are kept under these."""
        return ()


def _check_placeholders(text: str) -> None:
    """Refuse what `str.format` would do beyond putting the two values in."""
    wanted = "write {time}, {sequence}, or {{ and }} for braces"
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"{error}; {wanted}") from None
    for _, name, spec, conversion in parts:
        if name is not None and (name not in PLACEHOLDERS or spec or conversion):
            written = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            raise ValueError(f"{{{shown(written)}}} means nothing here; {wanted}")


@dataclass(frozen=True, kw_only=True)
class EveryOptions(FeedOptions):
    """A message now and then."""

    kind = "every"
    every: Annotated[float, Unit("duration", 0.001, 86_400.0)]
    message: Annotated[str, Check(_check_placeholders)] = "{time} {sequence}"

    def render(self, now_s: float, sequence: int) -> bytes:
        """Return the message of a moment, in seconds since the epoch."""
        return self.message.format(time=f"{now_s:.3f}", sequence=sequence).encode()


UNIX = "unix:"


def _check_lines(text: str) -> None:
    if text.startswith(UNIX):
        parse_address(text, listen=True)
    elif text != "-" and (not text.startswith("/") or text.endswith("/") or not text.isprintable()):
        raise ValueError(
            f"{shown(text)} is not an absolute path; write one such as /var/log/ticks.log, - for standard input, "
            "or unix:/run/gaiod/in.sock"
        )


@dataclass(frozen=True, kw_only=True)
class LinesOptions(FeedOptions):
    """The lines of a file, a FIFO, standard input or a unix socket."""

    kind = "lines"
    lines: Annotated[str, Check(_check_lines)]
    read_from: Literal["end", "start"] = "end"

    @property
    def is_socket(self) -> bool:
        """Whether it is a unix socket that others connect to."""
        return self.lines.startswith(UNIX)

    @property
    def places(self) -> Sequence[str]:
        """As of any source."""
        return (f"lines {self.lines}",)


@dataclass(frozen=True, kw_only=True)
class HttpOptions(FeedOptions):
    """Messages that are sent by HTTP."""

    kind = "http"
    http: Annotated[str, Check(check_bind)]


def _check_redis_names(names: Sequence[str]) -> None:
    if len(names) > REDIS_NAMES_MAX:
        raise ValueError(
            f"names {len(names)}; write at most {REDIS_NAMES_MAX}, and the others to a source of their own"
        )
    for name in names:
        if not name:
            raise ValueError("has an empty name; remove it")
        if names.count(name) > 1:
            raise ValueError(f"names {shown(name)} twice; write it once")


def _check_streams(names: Sequence[str]) -> None:
    _check_redis_names(names)
    for name in names:
        if is_pattern(name):
            raise ValueError(
                f"names {shown(name)}, but streams have no patterns: it would never be read; write each stream's name, "
                "or the pattern in channels"
            )


Channels = Annotated[list[str], Check(_check_redis_names)]
Streams = Annotated[list[str], Check(_check_streams)]


@dataclass(frozen=True, kw_only=True)
class RedisOptions(FeedOptions):
    """What is published in channels of a Redis, or added to its streams."""

    kind = "redis"
    redis: Annotated[str, Check(check_redis_url)] = dataclasses.field(repr=False)
    channels: Channels = dataclasses.field(default_factory=list)
    streams: Streams = dataclasses.field(default_factory=list)
    field: str = "message"
    password_file: str | None = None

    @property
    def places(self) -> Sequence[str]:
        """As of any source."""
        return tuple(map(self.place_of, self.streams)) or (self.place_of(None),)

    def place_of(self, stream: str | None) -> str:
        """Return where one of its streams is; None: its channels."""
        url = without_password(self.redis)
        return f"{url} channels" if stream is None else f"{url} stream {stream}"

    def __post_init__(self) -> None:
        if bool(self.channels) == bool(self.streams):
            raise ValueError(f"source {self.label} has either channels or streams; write one of them")
        if self.password_file is not None and not self.password_file.startswith("/"):
            shown_path = shown(self.password_file)
            raise ValueError(f"source {self.label}: password_file {shown_path} is not absolute; write a path from / on")
        if self.password_file is not None and has_password(self.redis):
            raise ValueError(f"source {self.label} has a password in its URL, too; remove it there, or password_file")


FeedKind = EveryOptions | LinesOptions | HttpOptions | RedisOptions


def _check_topics(topics: Sequence[str]) -> None:
    if not topics:
        raise ValueError("has no topics, so that clients could not subscribe; write some, or false for any")


@dataclass(frozen=True)
class SubscribeOptions:
    """`subscribe:`, where clients choose their topics."""

    timeout: Annotated[float, Unit("duration", 0.1, 3600.0)] = 5.0
    topics_max: Annotated[int, Unit("count", 1, 1024)] = 16
    topics: Literal[False] | Annotated[list[TopicText], Check(_check_topics)] = False

    def offers(self, topic: str) -> bool:
        """Tell whether clients may choose a topic."""
        return self.topics is False or topic in self.topics


@dataclass(frozen=True)
class OfferedTopics:
    """The topics that subscribers can have.

    Attributes:
        only: every subscriber has this one; None: each chooses.
        names: what they may choose; False: any.
    """

    only: str | None
    names: Literal[False] | Sequence[str]

    def check(self, topic: str) -> None:
        """Refuse a topic that no subscriber can have.

        Raises:
            ValueError: it is one; the text says why.
        """
        check_topic(topic)
        if self.only is not None and topic != self.only:
            raise ValueError(f"there is no topic {shown(topic)}: every subscriber gets {self.only}")
        if self.names is not False and topic not in self.names:
            raise ValueError(f"there is no topic {shown(topic)}: subscribe.topics does not name it")


@dataclass(frozen=True)
class SlowConsumerOptions:
    """`slow_consumer:`, what becomes of subscribers that do not keep up."""

    policy: Literal["disconnect", "drop_oldest", "drop_newest", "latest_only"] = "disconnect"
    limit: Annotated[int, Unit("size", 1024, 1 << 30)] = 256 << 10
    grace: Annotated[float, Unit("duration", 0.01, 3600.0)] | None = None

    def __post_init__(self) -> None:
        if self.policy == "disconnect":
            object.__setattr__(self, "grace", GRACE_DEFAULT_S if self.grace is None else self.grace)
        elif self.grace is not None:
            raise ValueError(
                f"slow_consumer.grace is for the policy disconnect, and {self.policy} never disconnects; remove it"
            )


def _check_sources(value: Any) -> None:
    """Refuse too many. `value` is a mapping, or a list of such, as the file has it."""
    if isinstance(value, list) and len(value) > SOURCES_MAX:
        raise ValueError(f"names {len(value)} sources; write at most {SOURCES_MAX}")


@dataclass(frozen=True)
class PushOptions:
    """The keys of `with:`."""

    topic: TopicText | None = None
    subscribe: Literal[False] | SubscribeOptions = False
    source: Annotated[FeedKind | list[FeedKind], Check(_check_sources)] = dataclasses.field(default_factory=list)
    framing: Framing = "lines"
    last_value: bool = False
    slow_consumer: SlowConsumerOptions = SlowConsumerOptions()
    memory_limit: Annotated[int, Unit("size", 1 << 20, 1 << 40)] = 256 << 20
    half_closed_timeout: Annotated[float, Unit("duration", 0.1, 86_400.0)] = 1.0
    feeds: tuple[FeedKind, ...] = dataclasses.field(init=False)
    """`source`, one or several, as a tuple."""
    offered: OfferedTopics = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        feeds = tuple(self.source) if isinstance(self.source, list) else (self.source,)
        object.__setattr__(self, "feeds", feeds)
        if self.subscribe is False:
            object.__setattr__(self, "topic", self.topic or DEFAULT_TOPIC)
        elif self.topic is not None:
            raise ValueError(
                "topic and subscribe exclude each other: either the listener chooses the topics, or each client; "
                "remove one"
            )
        names = self.subscribe.topics if self.subscribe is not False else False
        object.__setattr__(self, "offered", OfferedTopics(self.topic, names))
        if self.slow_consumer.limit > self.memory_limit:
            raise ValueError(
                "slow_consumer.limit exceeds memory_limit, which applies to all subscribers together; "
                "lower it, or raise memory_limit"
            )
        for feed in feeds:
            self._check_feed(feed)

    def _check_feed(self, feed: FeedKind) -> None:
        """Refuse a source of which no message could reach anybody."""
        topic = self.topic_of(feed)
        topics = [topic] if topic is not None else []
        if topic is None and isinstance(feed, EveryOptions | LinesOptions):
            raise ValueError(f"source {feed.label} has no topic, and clients choose theirs; add topic: NAME to it")
        if topic is None and isinstance(feed, RedisOptions):
            topics = [name for name in (*feed.channels, *feed.streams) if not is_pattern(name)]
        for each in topics:
            try:
                self.offered.check(each)
            except ValueError as error:
                raise ValueError(f"source {feed.label}: {error}; write one that there is") from None

    @property
    def message_max_bytes(self) -> int:
        """The longest message, with its frame."""
        return min(self.slow_consumer.limit, MESSAGE_MAX_BYTES)

    def topic_of(self, feed: FeedKind) -> str | None:
        """Return the topic of everything that a source brings; None: each message says its own."""
        return feed.topic or self.topic


def is_pattern(name: str) -> bool:
    """Tell whether a channel's name is a pattern to Redis."""
    return any(character in name for character in "*?[")
