"""A real terminal: tmux, with a server of its own, that shows what a person would see."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from core.support.waiting import LIMIT_S

from e2e.support.tools import tool
from e2e.support.waiting import wait_until

PROMPT = "prompt>"


class Screen:
    """A window with a shell in it."""

    def __init__(self, tmux: str, socket: Path) -> None:
        self._command = [tmux, "-f", "/dev/null", "-S", str(socket)]

    def run(self, *arguments: str) -> str:
        """Run a command of tmux's."""
        done = subprocess.run(
            [*self._command, *arguments], capture_output=True, text=True, timeout=LIMIT_S, check=True
        )  # fmt: skip
        return done.stdout

    def lines(self) -> list[str]:
        """Return what is on it."""
        return [line.rstrip() for line in self.run("capture-pane", "-p").splitlines()]

    def text(self) -> str:
        """Return the same as one text."""
        return "\n".join(self.lines())

    def type(self, *keys: str) -> None:
        """Press keys: `Enter` and `C-c` are such, other text is typed."""
        self.run("send-keys", *keys)

    def resize(self, width: int, height: int) -> None:
        """Give the window another size."""
        self.run("resize-window", "-x", str(width), "-y", str(height))

    def wait_for(self, look: str | Callable[[str], object]) -> str:
        """Wait until something is on it: a text, or what `look(text)` says; return all that is."""
        seen = ""

        def there() -> object:
            nonlocal seen
            seen = self.text()
            return look in seen if isinstance(look, str) else look(seen)

        try:
            wait_until(there, f"{look!r} on the screen")
        except AssertionError as failure:
            raise AssertionError(f"{failure}\n{seen}") from None
        return seen


@contextmanager
def screen(folder: Path, environment: dict[str, str], width: int = 140, height: int = 40) -> Iterator[Screen]:
    """Give a window with a shell that has this environment beside the tests'."""
    made = Screen(tool("tmux", "tmux"), folder / "tmux.sock")
    variables = [f"{name}={value}" for name, value in {"PS1": PROMPT, "TERM": "screen", **environment}.items()]
    shell = ["env", *variables, "sh"]
    made.run("new-session", "-d", "-x", str(width), "-y", str(height), *shell)
    try:
        made.wait_for(PROMPT)
        yield made
    finally:
        made.run("kill-server")
