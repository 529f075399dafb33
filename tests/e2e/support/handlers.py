"""Handlers as users write them: texts of files beside a configuration."""

BESIDE = """\
metrics: {{listen: "127.0.0.1:0"}}
listeners:
  mine:
    bind: "127.0.0.1:0"
    handler: ./mine.py
{more}"""

IMPORTS = """\
import os
import signal
import time
from dataclasses import dataclass, field

import gaiod

"""


def beside(more: str = "") -> str:
    """Return a configuration whose listener `mine` has the handler of ./mine.py; `more` of its keys, indented by 4."""
    return BESIDE.format(more=more)


SHOUT = (
    IMPORTS
    + """
@dataclass
class Options:
    prefix: str = ""
    pause: gaiod.Duration = 1.0


class Shout(gaiod.Handler):
    Options = Options

    def on_open(self, conn):
        conn.write(f"{self.options.prefix} {self.options.pause!r}\\n".encode())

    def on_write(self, conn, result):
        conn.read()

    def on_read(self, conn, result):
        conn.write(bytes(result.buffer).upper())
"""
)

RAISES_WHEN_TOLD = (
    IMPORTS
    + """
class Raises(gaiod.Handler):
    def on_open(self, conn):
        conn.read()

    def on_read(self, conn, result):
        if bytes(result.buffer) == b"raise":
            raise RuntimeError("told to")
        conn.write(result.buffer)

    def on_write(self, conn, result):
        conn.read()
"""
)

FLOODS = (
    IMPORTS
    + """
class Floods(gaiod.Handler):
    def on_open(self, conn):
        conn.write(bytes(64 * 1024 * 1024))
"""
)

HANGS = (
    IMPORTS
    + """
class Hangs(gaiod.Handler):
    def on_open(self, conn):
        conn.read()

    def on_read(self, conn, result):
        conn.write(b"hanging")
        conn.read()
        self.hang = True

    def on_write(self, conn, result):
        while True:
            time.sleep(3600)
"""
)

ECHOES = """\
class Mine(gaiod.Handler):
    def on_open(self, conn):
        conn.read()
    def on_read(self, conn, result):
        conn.write(result.buffer)
    def on_write(self, conn, result):
        conn.read()
"""
