"""How a configuration names a handler: `echo`, `package.module:Class`, or a file `./shout.py`.

A file is looked for beside the configuration, never in the working directory: where the daemon happens
to be started must not decide which code it runs.
"""

import os
import re
from pathlib import Path

from gaiod.config.errors import Refused
from gaiod.wording import shown

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
FILE = re.compile(r"(?P<file>[^\0]*[^\0/]\.py)(?P<name>:[A-Za-z_]\w*)?", re.ASCII)

WANTED = "a name such as echo, package.module:Class, or ./file.py"


def resolve_reference(value: str, folder: Path | None) -> str:
    """Return the reference as `load_handler` takes it: a file becomes an absolute path.

    `folder` is the configuration's own; None where the text came from no file.

    Raises:
        Refused: it names no handler.
    """
    if value.startswith(("/", "./", "../")):
        return _file(value, folder)
    if NAME.fullmatch(value) or (DOTTED.fullmatch(value) and ".py:" not in value):
        return value
    raise Refused(_not_a_reference(value))


def _file(value: str, folder: Path | None) -> str:
    match = FILE.fullmatch(value)
    if match is None:
        raise Refused(f"{shown(value)} is not a Python file; write a path that ends in .py or .py:Class")
    if folder is None and not value.startswith("/"):
        raise Refused(f"{shown(value)} is relative to nothing here; write the absolute path")
    return os.path.abspath(os.path.join(folder or "/", match["file"])) + (match["name"] or "")


def _not_a_reference(value: str) -> str:
    text = shown(value)
    if value.startswith("~"):
        return f"{text}: ~ is not expanded; write the absolute path"
    if FILE.fullmatch(value):
        return f"{text} looks like a file; write ./{text}"
    if DOTTED.fullmatch(f"{value}:Class"):
        return f"{text} names no class; write {text}:Class"
    return f"{text} is not a handler; write {WANTED}"
