"""Compile the core where Cython and a C compiler are at hand; install without it where they are not.

Everything else about the package is in pyproject.toml. This file is only for what cannot be said
there: an extension that may fail, and the digest by which a test tells a stale one.
"""

import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

PACKAGE = Path("gaiod")
GENERATED = Path("build/cython")
COMPILED = [
    "core/_clients.pyx",
    "core/_contexts.pyx",
    "core/_flows.pyx",
    "core/_openssl.pyx",
    "core/_outboxes.pyx",
    "core/_sessions.pyx",
    "core/_stopwatch.pyx",
    "core/_syscalls.pyx",
    "core/connection.py",
    "core/fanout.py",
    "core/group.py",
    "core/handover.py",
    "core/handshakes.py",
    "core/inspect.py",
    "core/loop.py",
    "core/pending.py",
    "core/relays.py",
    "core/results.pyx",
    "core/sockets.py",
    "core/timers.py",
    "core/turns.py",
    "core/watcher.py",
    "handler/coroutines/stream.py",
    "handler/coroutines/tasks.py",
    "handler/coroutines/waits.pyx",
    "process/dispatch.py",
    "worker/admission/per_address.py",
    "worker/admission/tallies.py",
    "worker/admission/total.py",
    "worker/handover/giver.py",
    "worker/handover/taker.py",
    "worker/handover/wire.py",
    "worker/ledger.py",
    "worker/listener.py",
    "worker/names.py",
]


PACKAGES = [
    *find_packages(include=["gaiod", "gaiod.*"]),
    "gaiod.handlers",
    *(f"gaiod.handlers.{name}" for name in find_packages("handlers")),
    "gaiod.default_config",
]
"""Those of `handlers/` and `config/` stand beside gaiod in the repository, and are installed inside it."""


def digest() -> str:
    """Return the digest of what is compiled. The test that tells stale modules computes the same."""
    names = sorted([*COMPILED, *(str(Path(name).with_suffix(".pxd")) for name in COMPILED)])
    return hashlib.sha256(b"".join((PACKAGE / name).read_bytes() for name in names)).hexdigest()


def extension(name: str) -> Extension:
    """Return the extension of one source file, the digest compiled in."""
    module = "gaiod." + name.partition(".")[0].replace("/", ".")
    return Extension(
        module,
        [str(PACKAGE / name)],
        define_macros=[("GAIOD_SOURCES", f'"{digest()}"')],
        # Debugging information of generated C would be nine tenths of the wheel. And a message makes some hundred calls
        # into Python's library, each by way of a jump of its own unless told otherwise: 2 % of its instructions.
        extra_compile_args=["-g0", "-fno-plt"],
    )


def generate(extensions: list[Extension]) -> None:
    """Have extensions made of C that Cython generates: of their names and options nothing changes.

    Cython takes a minute of CPU time. Where CYTHON_CACHE_DIR is set, what it made of the same sources is in there
    for the next build, in this folder or another.
    """
    from Cython.Build import cythonize

    directives = {
        "language_level": 3,
        "boundscheck": False,  # every index in the core comes from a counter beside its list
        "wraparound": False,
        "initializedcheck": False,
        "annotation_typing": False,  # types are the .pxd's; annotations are for people and mypy
        "binding": False,  # plain C methods, which the interpreter calls faster than ones that act like functions
        "embedsignature": True,
    }
    shutil.rmtree(GENERATED, ignore_errors=True)  # what is there may be of other directives
    made = cythonize(
        extensions,
        nthreads=os.cpu_count(),
        compiler_directives=directives,
        build_dir=str(GENERATED),
        cache="CYTHON_CACHE_DIR" in os.environ,
    )
    for old, new in zip(extensions, made, strict=True):
        old.sources = new.sources


def remove_stale() -> None:
    """Remove what an older version compiled in this folder: it would be found before the source of the same name."""
    modules = {PACKAGE / Path(name).with_suffix("") for name in COMPILED}
    for folder in {module.parent for module in modules}:
        for path in folder.glob("*.so"):
            if folder / path.name.partition(".")[0] not in modules:
                path.unlink()


class BuildOrDoWithout(build_ext):
    """Build the extensions, or say in one line that gaiod will run interpreted.

    Only here is Cython run: pip starts this file three times for one wheel, twice to ask what it is called.
    """

    def finalize_options(self) -> None:
        """Compile on every CPU: it is what an installation waits for."""
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extensions(self) -> None:
        """Try the compiler and Python's headers first: without them Cython would work a minute in vain."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "trial.c"
            source.write_text("#include <Python.h>\n")
            self.compiler.compile([str(source)], output_dir=folder)
        remove_stale()
        generate(self.extensions)
        super().build_extensions()

    def run(self) -> None:
        """Build them, or do without."""
        try:
            super().run()
        except Exception as error:
            print(
                f"gaiod: no compiled engine, it will run interpreted (a third of the speed): {error}", file=sys.stderr
            )
            self.extensions = []  # or an editable install would look for them


if sys.platform == "linux":
    extensions = [extension(name) for name in COMPILED]
    setup(packages=PACKAGES, ext_modules=extensions, cmdclass={"build_ext": BuildOrDoWithout})
else:
    setup(packages=PACKAGES)  # the compiled engine speaks epoll; elsewhere gaiod runs interpreted, on kqueue
