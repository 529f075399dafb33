"""Units for a handler's options: what the YAML says as `2s` or `64KiB`, the handler gets as a number.

    @dataclass
    class Options:
        poll_every: Duration = 2.0                                        # YAML: 500ms
        answer_max: Size = 65536                                          # YAML: 64KiB
        grace: Annotated[float, Unit("duration", maximum=60.0)] = 5.0     # at most 1m

The type is all a worker needs; `gaiod.config` reads the marker. A unit is required in the YAML for a
duration (`30` alone is refused) and optional for a size (`4096` is bytes).
"""

from dataclasses import dataclass
from typing import Annotated, Literal


@dataclass(frozen=True, slots=True)
class Unit:
    """Marks a number as a duration in seconds or a size in bytes, and bounds it."""

    kind: Literal["duration", "size"]
    minimum: float = 0
    maximum: float | None = None
    """In seconds or bytes; None: the largest that still makes sense (365d, 1024GiB)."""


Duration = Annotated[float, Unit("duration")]
"""Seconds."""

Size = Annotated[int, Unit("size")]
"""Bytes."""
