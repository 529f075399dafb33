"""The core: sockets and time, nothing else. One source, two engines.

`gaiod/core/watcher.py` runs as it stands, or compiled by Cython to C where a compiler was at hand
when gaiod was installed. Which one a process uses is settled here, before the first import of it:
the compiled one if it is there, unless `GAIOD_ENGINE=interpreted` asks for the other.
`GAIOD_ENGINE=compiled` makes a missing compiled engine an error.
"""

import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Literal

_PACKAGE = Path(__file__).parent.parent
COMPILED = (
    "core._clients", "core._contexts", "core._flows", "core._openssl", "core._outboxes", "core._sessions",
    "core._stopwatch", "core._syscalls", "core.connection", "core.fanout", "core.group", "core.handover",
    "core.handshakes", "core.inspect", "core.loop", "core.pending", "core.relays", "core.results", "core.sockets",
    "core.timers", "core.turns", "core.watcher", "handler.coroutines.stream", "handler.coroutines.tasks",
    "handler.coroutines.waits", "process.dispatch", "worker.admission.per_address", "worker.admission.tallies",
    "worker.admission.total",
    "worker.handover.giver", "worker.handover.taker", "worker.handover.wire", "worker.ledger", "worker.listener",
    "worker.names",
)  # fmt: skip
"""The modules that the compiled engine replaces."""


class _SourceFinder:
    """Finds the compiled engine's modules as X.py even where an extension module of that name lies beside it."""

    @staticmethod
    def find_spec(name: str, path: object, target: ModuleType | None = None) -> ModuleSpec | None:
        module = name.removeprefix("gaiod.")
        source = _file(module, ".py")
        return spec_from_file_location(name, source) if module in COMPILED and source.exists() else None


def _file(module: str, suffix: str) -> Path:
    return _PACKAGE / (module.replace(".", "/") + suffix)


def _is_compiled() -> bool:
    return all(any(_file(module, suffix).exists() for suffix in EXTENSION_SUFFIXES) for module in COMPILED)


def _choose_engine() -> Literal["compiled", "interpreted"]:
    wanted = os.environ.get("GAIOD_ENGINE", "")
    if wanted not in ("", "compiled", "interpreted"):
        raise ImportError(f"GAIOD_ENGINE={wanted}: no such engine; unset it, or use compiled or interpreted")
    if wanted != "interpreted" and _is_compiled():
        return "compiled"
    if wanted == "compiled":
        raise ImportError(
            "GAIOD_ENGINE=compiled: this install has no compiled engine; install a C compiler and the "
            f"headers of Python {sys.version_info.major}.{sys.version_info.minor}, then reinstall gaiod"
        )
    sys.meta_path.insert(0, _SourceFinder)
    return "interpreted"


ENGINE: Literal["compiled", "interpreted"] = _choose_engine()
"""The engine of this process."""
