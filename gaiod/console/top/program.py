"""What `gaiod top` does: looks, draws, and does what keys say, until it is to end."""

import json
import sys
import time
from dataclasses import dataclass, replace

from rich.console import Console, ConsoleDimensions, Group
from rich.live import Live

from gaiod.console.top.looks import SORTS, Look, Looker
from gaiod.console.top.picture import Frame, keys_text, picture
from gaiod.console.top.terminal import RESIZED, Terminal
from gaiod.control.client import Conversation
from gaiod.control.protocol import ControlError

ONCE_S = 1.0
"""How long one picture is made for, at most: rates of connections are between two looks."""

PLAIN_WIDTH = 120
"""Columns where nobody says: a file has no width, and a mail is not read at 80 any more."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line says.

    Attributes:
        sort: what connections are sorted by.
        interval_s: between two looks.
        limit: most connections; None: what fits on the screen, or 20.
    """

    sort: str
    interval_s: float
    limit: int | None = None

    @property
    def plain_limit(self) -> int:
        """How many connections where there is no screen."""
        return 20 if self.limit is None else self.limit


def show_once(looker: Looker, wanted: Wanted) -> None:
    """Print one picture."""
    console = new_console()
    if not sys.stdout.isatty():
        console.width = PLAIN_WIDTH
    console.print(picture(_second_look(looker, wanted), Frame(console.width)))


def print_json(looker: Looker, wanted: Wanted, *, once: bool) -> None:
    """Print a document for each look, a line each."""
    while True:
        look = _second_look(looker, wanted) if once else looker.look(wanted.sort, wanted.plain_limit)
        print(json.dumps(look.as_json()), flush=True)
        if once:
            return
        time.sleep(wanted.interval_s)


def _second_look(looker: Looker, wanted: Wanted) -> Look:
    looker.look(wanted.sort, 1)
    time.sleep(min(wanted.interval_s, ONCE_S))
    return looker.look(wanted.sort, wanted.plain_limit)


def show_live(looker: Looker, wanted: Wanted) -> None:
    """Draw on the whole screen, until a key says that it is enough.

    Raises:
        ControlError: there is no daemon to begin with. One that goes away later is waited for.
    """
    console = new_console()
    view = View(looker, wanted)
    view.look(console.height)
    with Terminal() as terminal, Live(
        console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
    ) as live:  # fmt: skip
        while True:
            width, height = terminal.size()
            console.size = ConsoleDimensions(width, height)
            live.update(view.draw(width, height), refresh=True)
            key = terminal.wait(view.due_s - time.monotonic())
            if key == "q":
                return
            if key != RESIZED and (not key or view.press(key)):
                view.look(height)


class View:
    """What is seen now, and what comes next."""

    def __init__(self, looker: Looker, wanted: Wanted) -> None:
        self._looker = looker
        self._wanted = wanted
        self._look: Look | None = None
        self._trouble = ""
        self.due_s = 0.0

    def look(self, height: int) -> None:
        """Look again.

        Raises:
            ControlError: the first look fails.
        """
        wanted = self._wanted
        try:
            self._look = self._looker.look(wanted.sort, max(1, height) if wanted.limit is None else wanted.limit)
            self._trouble = ""
        except ControlError as error:
            if self._look is None:
                raise
            self._trouble = f"trying again: {error}"
        self.due_s = time.monotonic() + wanted.interval_s

    def draw(self, width: int, height: int) -> Group:
        """Return the picture of the last look."""
        assert self._look is not None
        keys = keys_text(self._wanted.sort, self._looker.listener)
        return picture(self._look, Frame(width, height, keys, self._trouble))

    def press(self, key: str) -> bool:
        """Do what a key says; tell whether to look again at once."""
        if key in SORTS:
            self._wanted = replace(self._wanted, sort=SORTS[key])
        elif key == "l":
            self._looker.listener = self._next_listener()
        else:
            return False
        return True

    def _next_listener(self) -> str | None:
        """Return the listener behind the present one; None, all of them, behind the last."""
        assert self._look is not None
        names = [None, *(row["listener"] for row in self._look.status["listeners"])]
        present = self._looker.listener
        return names[(names.index(present) + 1) % len(names)] if present in names else None


def new_console() -> Console:
    """Return where to draw: nothing in what is drawn is markup."""
    return Console(markup=False, emoji=False, highlight=False, soft_wrap=False)


def run(control: str | None, wanted: Wanted, *, listener: str | None, once: bool, as_json: bool) -> None:
    """Run as the command says; without a terminal there is one picture.

    Raises:
        ControlError: the daemon does not answer.
    """
    with Conversation(control) as conversation:
        looker = Looker(conversation, listener)
        try:
            if as_json:
                print_json(looker, wanted, once=once)
            elif once or not sys.stdout.isatty() or new_console().is_dumb_terminal:
                show_once(looker, wanted)
            else:
                show_live(looker, wanted)
        except KeyboardInterrupt:
            pass  # that is how one leaves it
