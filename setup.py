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
SOURCES = ["_syscalls.pxd", "_syscalls.pyx", "watcher.pxd", "watcher.py"]


def digest() -> str:
    """Return the digest of what is compiled: `gaiod.core.sources_digest` computes the same."""
    return hashlib.sha256(b"".join((CORE / name).read_bytes() for name in SOURCES)).hexdigest()


def extensions() -> list[Extension]:
    try:
        from Cython.Build import cythonize
    except ImportError:
        return []
    macros = [("GAIOD_SOURCES", f'"{digest()}"')]
    made = [
        Extension(f"gaiod.core.{name}", [str(CORE / file)], define_macros=macros, extra_compile_args=["-O2"], optional=True)
        for name, file in (("_syscalls", "_syscalls.pyx"), ("watcher", "watcher.py"))
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
