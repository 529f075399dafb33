"""The hooks that a handler can have, by name."""

HOOKS = (
    "on_start", "on_open", "on_read", "on_write", "on_eof", "on_close", "on_tick", "on_timer", "on_post", "on_connect",
    "on_relay", "on_message", "on_error",
)  # fmt: skip


def check_hook(name: str, owner: str) -> None:
    """Refuse a hook that does not exist: it would never be called, and nobody would know why.

    Raises:
        TypeError: there is none of this name; the text names the nearest.
    """
    if name.startswith("on_") and name not in HOOKS:
        raise TypeError(f"{owner}.{name} is not a hook; {_advice(name)}")


def _advice(name: str) -> str:
    from difflib import get_close_matches  # late: a worker whose handlers are right never needs it

    near = get_close_matches(name, HOOKS, n=1)
    return f"did you mean {near[0]}?" if near else f"the hooks are {', '.join(HOOKS)}"
