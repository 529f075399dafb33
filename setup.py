"""Compile the core where Cython and a C compiler are at hand; install without it where they are not.

Everything else about the package is in pyproject.toml. This file is only for what cannot be said
there: an extension that may fail, and the digest by which a test tells a stale one.
"""

import hashlib
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CORE = Path("gaiod/core")
COMPILED = ["_syscalls.pyx", "alarms.py", "connection.py", "loop.py", "operations.py", "watcher.py"]


def digest() -> str:
    """Return the digest of what is compiled. The test that tells stale modules computes the same."""
    names = sorted([*COMPILED, *(Path(name).with_suffix(".pxd").name for name in COMPILED)])
    return hashlib.sha256(b"".join((CORE / name).read_bytes() for name in names)).hexdigest()


def extensions() -> list[Extension]:
    try:
        from Cython.Build import cythonize
    except ImportError:
        return []
    macros = [("GAIOD_SOURCES", f'"{digest()}"')]
    made = [
        Extension(f"gaiod.core.{Path(name).stem}", [str(CORE / name)], define_macros=macros)
        for name in COMPILED
    ]
    directives = {
        "language_level": 3,
        "boundscheck": False,  # every index in the core comes from a counter beside its list
        "wraparound": False,
        "initializedcheck": False,
        "annotation_typing": False,  # types are the .pxd's; annotations are for people and mypy
    }
    return cythonize(made, compiler_directives=directives, build_dir="build/cython", force=True)


class BuildOrDoWithout(build_ext):
    """Build the extensions, or say in one line that gaiod will run interpreted."""

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:
            self.do_without(error)

    def build_extension(self, ext: Extension) -> None:
        super().build_extension(ext)

    def do_without(self, error: Exception) -> None:
        print(f"gaiod: no compiled engine ({error}); it will run interpreted, at a third of the speed", file=sys.stderr)


if sys.platform == "linux":
    setup(ext_modules=extensions(), cmdclass={"build_ext": BuildOrDoWithout})
else:
    setup()  # the compiled engine speaks epoll; elsewhere gaiod runs interpreted, on kqueue
