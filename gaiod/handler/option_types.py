"""Markers for a handler's options: units, bounds, and checks of one's own.

    @dataclass
    class Options:
        poll_every: Duration = 2.0                                        # YAML: 500ms
        answer_max: Size = 65536                                          # YAML: 64KiB
        grace: Annotated[float, Unit("duration", maximum=60.0)] = 5.0     # at most 1m
        tries: Annotated[int, Unit("count", 1, 10)] = 3                   # from 1 to 10
        topic: Annotated[str, Check(topic_of)] = "news"                   # what topic_of() does not refuse
        server: Annotated[str, Check(parse_address)] = "127.0.0.1:5432"   # an address: gaiod.parse_address
    ca: PemFile | None = None                                         # the text of a file: /etc/gaiod/ca.pem

The type is all a worker needs; `gaiod.config` reads the marker. A unit is required in the YAML for a
duration (`30` alone is refused), optional for a size (`4096` is bytes), and a count has none.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal


@dataclass(frozen=True, slots=True)
class Unit:
    """Marks a number as a duration in seconds, a size in bytes or a whole number of things, and bounds it."""

    kind: Literal["duration", "size", "count"]
    minimum: float = 0
    maximum: float | None = None
    """In seconds, bytes or things; None: the largest that still makes sense (365d, 1024GiB, 18 digits)."""


@dataclass(frozen=True, slots=True)
class Check:
    """Marks a value with a check that its type does not say.

    Unlike what `__post_init__` refuses, it is told with the place of the value itself.
    """

    check: Callable[[Any], object]
    """Raises ValueError, its text `WHAT IS WRONG; WHAT TO DO`, for what does not fit; what it returns is not used."""


@dataclass(frozen=True, slots=True)
class PemFile:
    """A PEM file that an option names by its absolute path, with certificates or a key: what a `ClientTls` takes.

    It is read with the configuration, by who starts gaiod or reloads it. A worker gets its text and opens no file: so
    a key that the daemon's user cannot read works in every worker, and a file that has changed is another option.
    """

    path: str
    text: str = field(repr=False)
    """As it was when the configuration was read."""


Duration = Annotated[float, Unit("duration")]
"""Seconds."""

Size = Annotated[int, Unit("size")]
"""Bytes."""
