"""The code of a generation: what preflight imported is what its workers and its feeder run, whenever they start.

A `Recorder` stands in the way of the imports of preflight's child, and writes what came of them into an anonymous
file, whose descriptor every process of the generation gets. There a `KeptCode` stands in the way of imports:

* A handler's file, and the modules that it imports from outside of the installed packages, are *kept*: source and byte
  code are loaded from that file, whatever has become of the ones on disk. `__file__`, tracebacks and
  `inspect.getsource` show the path that they came from, and the text that was checked.
* Files of installed packages, and compiled modules wherever they are, are *compared*: they are loaded from the disk,
  and one that is another by then is logged and counted.
* A module of the first kind that preflight has not seen, because a hook imports it late, is loaded from the disk, and
  logged and counted likewise.

The interpreter and its standard library are neither. Files that are not modules are the handler's own business.
"""

import builtins
import json
import linecache
import logging
import marshal
import os
import sys
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import MAGIC_NUMBER, decode_source, resolve_name, spec_from_file_location
from types import CodeType, ModuleType
from typing import Any, Protocol

log = logging.getLogger("gaiod.code")

KEPT_MAX_BYTES = 64 * 1024 * 1024
"""Of source, over all modules that are kept: a bound for mistakes. 1 MiB is some 30,000 lines."""

NAMED_MAX = 3
"""How many changed files a line of the log names."""

STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep
INSTALLED = {"site-packages", "dist-packages"}
"""The names of folders that packages are installed in; the second is Debian's."""


NOTHING: dict[str, Any] = {
    "magic": MAGIC_NUMBER.hex(), "digest": "", "files": {}, "modules": {}, "namespaces": {}, "compared": {},
}  # fmt: skip
"""What an empty file says."""


class Store(Protocol):
    """Where loaders find what is kept."""

    def source(self, path: str) -> bytes:
        """Return the source that was read from a path."""

    def code(self, path: str) -> CodeType:
        """Return what was compiled from it."""

    def spec_of_file(self, name: str, path: str) -> ModuleSpec | None:
        """Return the spec of a handler's file; None: there is none."""


class KeptLoader(SourceFileLoader):
    """Loads a module from what is kept, as if it came from its path."""

    def __init__(self, name: str, path: str, store: Store) -> None:
        super().__init__(name, path)
        self._store = store

    def get_data(self, path: str) -> bytes:
        """Return the source that is kept; other files are data, and read from the disk."""
        return self._store.source(path) if path == self.path else super().get_data(path)

    def get_code(self, fullname: str) -> CodeType:
        """Return the byte code that is kept."""
        return self._store.code(self.path)

    def exec_module(self, module: ModuleType) -> None:
        """Run it. An entry of `linecache` without a time of modification is never read from the disk again."""
        source = self.get_data(self.path)
        linecache.cache[self.path] = (len(source), None, decode_source(source).splitlines(keepends=True), self.path)
        super().exec_module(module)


class Recorder:
    """Keeps what is imported from its making on, and who imported it. It stays in place: the process ends soon."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[bytes, CodeType]] = {}
        self._kept_bytes = 0
        self._compared: dict[str, tuple[int, int, str]] = {}
        self._modules: dict[str, tuple[str, bool]] = {}
        self._namespaces: dict[str, list[str]] = {}
        self._files: defaultdict[str, set[str]] = defaultdict(set)
        self._uses: defaultdict[str, set[str]] = defaultdict(set)
        self._import = builtins.__import__
        builtins.__import__ = self._note_import
        _put_first(self)

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        """Find a module as others do, and have it kept or compared."""
        spec = _found_elsewhere(self, name, path, target)
        if spec is not None:
            self._uses[_importer()].add(name)
            if _is_own(spec):
                self._keep(spec)
            elif spec.origin is None and spec.submodule_search_locations is not None:
                self._namespaces[name] = list(spec.submodule_search_locations)
            else:
                self._compare(spec)
        return spec

    def spec_of_file(self, name: str, path: str) -> ModuleSpec | None:
        """Return the spec of a handler's file, and have it kept, wherever it is; a compiled one is compared."""
        spec = _spec_on_disk(name, path)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            self._keep(spec)
        elif spec is not None:
            self._compare(spec)
        return spec

    def source(self, path: str) -> bytes:
        """Return the source of a module; it is read once."""
        return self._read(path)[0]

    def code(self, path: str) -> CodeType:
        """Return what it was compiled to."""
        return self._read(path)[1]

    def files_of(self, module: str) -> dict[str, str]:
        """Return the digests, by path, of a module's file and of those that it has imported, directly or not."""
        wanted, seen = [module], set()
        while wanted:
            name = wanted.pop()
            if name not in seen:
                seen.add(name)
                wanted += [*self._uses.get(name, ()), name.rpartition(".")[0]]
        paths = {path for name in seen for path in self._files.get(name, ())}
        return {path: self._digest_of_file(path) for path in sorted(paths)}

    def write(self, fd: int) -> None:
        """Write everything down."""
        files: dict[str, tuple[int, int, int]] = {}
        blobs: list[bytes] = []
        at = 0
        for path, (source, code) in self._kept.items():
            packed = marshal.dumps(code)
            files[path] = (at, len(source), len(packed))
            blobs += source, packed
            at += len(source) + len(packed)
        head = {
            "magic": MAGIC_NUMBER.hex(),
            "digest": _digest(b"".join(blobs)),
            "files": files,
            "modules": self._modules,
            "namespaces": self._namespaces,
            "compared": self._compared,
        }
        text = json.dumps(head).encode()
        with open(fd, "wb", closefd=False) as file:
            file.writelines([len(text).to_bytes(8, "big"), text, *blobs])

    def _keep(self, spec: ModuleSpec) -> None:
        assert spec.origin is not None
        self._modules[spec.name] = spec.origin, spec.submodule_search_locations is not None
        self._files[spec.name].add(spec.origin)
        spec.loader = KeptLoader(spec.name, spec.origin, self)

    def _compare(self, spec: ModuleSpec) -> None:
        path = getattr(spec.loader, "archive", spec.origin)  # of a zip file, that
        if not spec.has_location or path is None or (path.startswith(STANDARD_LIBRARY) and not _is_installed(path)):
            return
        self._files[spec.name].add(path)
        if path not in self._compared:
            stat = os.stat(path)
            self._compared[path] = stat.st_size, stat.st_mtime_ns, _digest_on_disk(path)

    def _read(self, path: str) -> tuple[bytes, CodeType]:
        if path not in self._kept:
            with open(path, "rb") as file:
                source = file.read(KEPT_MAX_BYTES + 1)
            self._kept_bytes += len(source)
            if self._kept_bytes > KEPT_MAX_BYTES:
                mib = KEPT_MAX_BYTES >> 20
                raise ImportError(f"{path}: the modules of handlers have more than {mib} MiB; install them as packages")
            self._kept[path] = source, SourceFileLoader("", path).source_to_code(source, path)
        return self._kept[path]

    def _digest_of_file(self, path: str) -> str:
        if path in self._compared:
            return self._compared[path][2]
        return _digest(self._kept[path][0]) if path in self._kept else ""  # its import failed, and that was survived

    def _note_import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 - the names are those of builtins.__import__
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Import as ever, and note who uses what: a module that is there already is found without `find_spec`."""
        module = self._import(name, globals, locals, fromlist or (), level)
        importer = (globals or {}).get("__name__")
        if globals is not None and importer is not None:
            base = resolve_name("." * level + name, globals.get("__package__")) if level else name
            parts = (f"{base}.{each}" for each in fromlist or ())
            self._uses[importer] |= {base, *(part for part in parts if part in sys.modules)}
        return module


class KeptCode:
    """Loads what a `Recorder` has written, from the time of `install` on.

    Attributes:
        compared: by path, the size, time of modification and digest that a file had.
    """

    def __init__(self, fd: int, changed: Callable[[int], None]) -> None:
        """Read the list of what is kept.

        Args:
            fd: the anonymous file's, which is taken over.
            changed: called with how many files there are more whose code runs although it was not checked.
        """
        self._fd = fd
        weakref.finalize(self, os.close, fd)  # what was loaded may ask for its source as long as it lives
        self._changed = changed
        size = int.from_bytes(os.pread(fd, 8, 0), "big")
        head = json.loads(os.pread(fd, size, 8)) if size else NOTHING
        self._blobs = 8 + size
        self._is_same_python = head["magic"] == MAGIC_NUMBER.hex()
        self._digest: str = head["digest"]
        self._files: dict[str, list[int]] = head["files"]
        self._modules: dict[str, tuple[str, bool]] = head["modules"]
        self._namespaces: dict[str, list[str]] = head["namespaces"]
        self.compared: dict[str, list[Any]] = head["compared"]

    def install(self) -> None:
        """Stand in the way of imports."""
        _put_first(self)

    def replace(self, before: "KeptCode") -> None:
        """Stand there instead of another. What was loaded from that one is loaded anew by who imports it next."""
        sys.meta_path.remove(before)
        _put_first(self)
        if self._digest != before._digest:
            for name in [name for name, module in sys.modules.items() if _is_kept(module)]:
                del sys.modules[name]
        self._note(
            "a process that runs on has loaded",
            (path for path in self._loaded() if before.compared.get(path, [""])[-1] != self.compared[path][-1]),
            "it runs them as they were: run gaiod upgrade",
        )

    def compare(self) -> None:
        """Compare the files of installed packages that are loaded by now."""
        self._note(
            "this process has loaded",
            (path for path in self._loaded() if _is_another(path, *self.compared[path])),
            "run gaiod reload, or gaiod upgrade if gaiod itself was installed anew",
        )

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        """Return the spec of a module that is kept; of another what others find."""
        if name in self._modules:
            file, is_package = self._modules[name]
            return self._spec(name, file, [os.path.dirname(file)] if is_package else None)
        if name in self._namespaces:
            spec = ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = list(self._namespaces[name])
            return spec
        spec_elsewhere = _found_elsewhere(self, name, path, target)
        if spec_elsewhere is not None and _is_own(spec_elsewhere):
            self._note(
                f"module {name} is imported late, from",
                [str(spec_elsewhere.origin)],
                "import it where the handler's file is loaded, at its top",
            )
        return spec_elsewhere

    def spec_of_file(self, name: str, path: str) -> ModuleSpec | None:
        """Return the spec of a handler's file."""
        return self._spec(name, path) if path in self._files else _spec_on_disk(name, path)

    def source(self, path: str) -> bytes:
        """Return the source that is kept of a path."""
        at, size, _ = self._files[path]
        return os.pread(self._fd, size, self._blobs + at)

    def code(self, path: str) -> CodeType:
        """Return what it was compiled to; by another Python, it is compiled anew."""
        if not self._is_same_python:
            return SourceFileLoader("", path).source_to_code(self.source(path), path)
        at, source_size, size = self._files[path]
        code: CodeType = marshal.loads(os.pread(self._fd, size, self._blobs + at + source_size))
        return code

    def _loaded(self) -> set[str]:
        """Return which of the files that are compared this process has loaded."""
        return {path for module in list(sys.modules.values()) if (path := _file_of(module)) in self.compared}

    def _spec(self, name: str, path: str, folders: list[str] | None = None) -> ModuleSpec | None:
        loader = KeptLoader(name, path, self)
        if folders is None:  # whether it is a package, the name of its file says
            return spec_from_file_location(name, path, loader=loader)
        return spec_from_file_location(name, path, loader=loader, submodule_search_locations=folders)

    def _note(self, how: str, paths: Iterable[str], remedy: str) -> None:
        """Log and count files whose code runs although the configuration was checked with another, or without it."""
        found = sorted(paths)
        if found:
            others = f" and {len(found) - NAMED_MAX} more" if len(found) > NAMED_MAX else ""
            named = f"{', '.join(found[:NAMED_MAX])}{others}"
            log.warning("%s %s: not what the configuration was checked with; %s", how, named, remedy)
            self._changed(len(found))


_store: Store | None = None


def spec_of_file(name: str, path: str) -> ModuleSpec | None:
    """Return the spec of a handler's file: what is kept of it, or what is on disk; None: there is none."""
    return _spec_on_disk(name, path) if _store is None else _store.spec_of_file(name, path)


def _put_first(finder: Any) -> None:
    """Let a finder be asked before all others, and be the one that `spec_of_file` asks."""
    global _store  # noqa: PLW0603 - as there is one sys.meta_path
    _store = finder
    sys.meta_path.insert(0, finder)


def _found_elsewhere(asker: Any, name: str, path: Sequence[str] | None, target: Any) -> ModuleSpec | None:
    """Ask every other finder."""
    for finder in sys.meta_path:
        if finder is not asker and (spec := finder.find_spec(name, path, target)) is not None:
            return spec
    return None


def _spec_on_disk(name: str, path: str) -> ModuleSpec | None:
    return spec_from_file_location(name, path) if os.path.isfile(path) else None


def _importer() -> str:
    """Return the name of the module that imports something now."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        name: str = frame.f_globals.get("__name__", "")
        if name != __name__ and name.partition(".")[0] != "importlib":
            return name
        frame = frame.f_back
    return ""


def _is_own(spec: ModuleSpec) -> bool:
    """Tell whether a module is source code from outside of the installed packages, gaiod and the standard library."""
    if type(spec.loader) is not SourceFileLoader or spec.origin is None or spec.name.partition(".")[0] == "gaiod":
        return False
    return not (spec.origin.startswith(STANDARD_LIBRARY) or _is_installed(spec.origin))


def _is_installed(path: str) -> bool:
    return not INSTALLED.isdisjoint(path.split(os.sep))


def _file_of(module: ModuleType) -> str:
    """Return the file that a module came from; of one in a zip file, that; empty: from none."""
    return getattr(getattr(module, "__loader__", None), "archive", None) or getattr(module, "__file__", None) or ""


def _is_kept(module: ModuleType) -> bool:
    return isinstance(getattr(module, "__loader__", None), KeptLoader)


def _is_another(path: str, size: int, mtime_ns: int, digest: str) -> bool:
    """Tell whether a file has other bytes; they are read only if its size or time says so."""
    try:
        stat = os.stat(path)
        return (stat.st_size, stat.st_mtime_ns) != (size, mtime_ns) and _digest_on_disk(path) != digest
    except OSError:
        return True


def _digest_on_disk(path: str) -> str:
    with open(path, "rb") as file:
        return _digest(file.read())


def _digest(data: bytes) -> str:
    import hashlib  # late: a worker needs it only if a file has changed

    return hashlib.sha256(data).hexdigest()
