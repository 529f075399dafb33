"""What the workers of a listener know in common: the last value of each key, small and bounded."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

KEY_MAX_CHARACTERS = 512
"""As many as the label of a server may need."""

RESERVED = "gaiod:"
"""So begin the keys of what gaiod itself shares."""

VALUE_MAX_BYTES = 16 * 1024
"""Of a value as JSON. Whatever is longer is data, and not what one worker has to tell the others."""

TOTAL_MAX_BYTES = 1024 * 1024
"""Of all keys and values of a listener: each worker holds them, and so does the supervisor."""


class SharedValues:
    """The last value of each key.

    Attributes:
        values: by key, as JSON has them (a tuple is a list). A view: read it only.
    """

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        """Make it; `values` are those of another one, or nothing."""
        self._values: dict[str, Any] = {}
        self._texts: dict[str, str] = {}
        self._size = 0
        self.values: Mapping[str, Any] = MappingProxyType(self._values)
        for key, value in (values or {}).items():
            self.put(key, value)

    def put(self, key: str, value: Any, *, total_max: float = TOTAL_MAX_BYTES) -> bool:
        """Keep a value instead of the one before; tell whether it is another. None: keep none.

        Raises:
            ValueError: it cannot be kept, or all together would be longer than `total_max`; nothing has changed.
        """
        before = self._texts.get(key)
        text = None if value is None else _text_of(key, value)
        if text == before:
            return False
        size = self._size + _size(key, text) - _size(key, before)
        if size > total_max and text is not None:
            raise ValueError(
                f"shared value {key!r}: all of a listener have {size} bytes with it, and at most {total_max}; "
                "share fewer or shorter values, and None for a key that is not needed any more"
            )
        self._size = size
        if text is None:
            del self._texts[key], self._values[key]
        else:
            self._texts[key] = text
            self._values[key] = json.loads(text)
        return True


def _size(key: str, text: str | None) -> int:
    return 0 if text is None else len(key) + len(text)


def _text_of(key: str, value: Any) -> str:
    """Return a value as JSON.

    Raises:
        ValueError: the key or the value cannot be used.
    """
    if not isinstance(key, str) or not key.isprintable() or not 0 < len(key) <= KEY_MAX_CHARACTERS:
        raise ValueError(f"{key!r} is no key of a shared value; write 1 to {KEY_MAX_CHARACTERS} printable characters")
    try:
        text = json.dumps(value, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"shared value {key!r} cannot be JSON: {error}; share plain values") from None
    if len(text) > VALUE_MAX_BYTES:
        raise ValueError(f"shared value {key!r} has {len(text)} bytes as JSON; share at most {VALUE_MAX_BYTES}")
    return text
