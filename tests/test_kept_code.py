"""What preflight has imported is what others load. Each stands in the way of imports, so it has its own process."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from core.support.waiting import LIMIT_S

HANDLER = (
    "import gaiod\nclass Mine(gaiod.Handler):\n    says = {says!r}\n    def fail(self):\n        raise RuntimeError\n"
)

RECORD = """
import json, os, sys
sys.path[:0] = json.loads(sys.argv[3])
from gaiod.kept_code import Recorder
from gaiod.plugins import load_handler, module_of, pinned
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_TRUNC)
recorder = Recorder()
references = json.loads(sys.argv[2])
for reference in references:
    load_handler(reference)
recorder.write(fd)
print(json.dumps({each: recorder.files_of(module_of(pinned(each))) for each in references}))
"""

LOAD = """
import json, logging, os, sys
sys.path[:0] = json.loads(sys.argv[3])
logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
from gaiod.kept_code import KeptCode
from gaiod.plugins import load_handler
changed = []
code = KeptCode(os.open(sys.argv[1], os.O_RDONLY), changed.append)
code.install()
kinds = [load_handler(reference) for reference in json.loads(sys.argv[2])]
code.compare()
"""


def _run(program: str, *arguments: str) -> tuple[str, str]:
    """Run a program; return what it has printed and logged."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr.strip()


class Kept:
    """What was imported of some handlers, in a file.

    Args:
        folder: where the file is to be.
        handlers: their references.
        path: folders that modules are imported from.
    """

    def __init__(self, folder: Path, *handlers: object, path: tuple[Path, ...] = ()) -> None:
        self.file = folder / "kept"
        self._handlers, self._path = json.dumps(list(map(str, handlers))), json.dumps(list(map(str, path)))
        self.digests: dict[str, dict[str, str]] = json.loads(self._run(RECORD)[0])

    def load(self, more: str = "") -> tuple[Any, str]:
        """Load the handlers as a worker does, run more; return what that has printed, and the log."""
        printed, logged = self._run(LOAD + more)
        return json.loads(printed) if printed else None, logged

    def _run(self, program: str) -> tuple[str, str]:
        return _run(program, str(self.file), self._handlers, self._path)


SAYS = "print(json.dumps(kinds[0].says))"


def _write(folder: Path, says: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(HANDLER.format(says=says))
    return path


@pytest.mark.parametrize("now", ["class Mine(:", HANDLER.format(says="another"), None], ids=["broken", "other", "none"])
def test_handler_is_what_was_recorded_whatever_the_file_has_become(tmp_path: Path, now: str | None) -> None:
    path = _write(tmp_path, "checked")
    kept = Kept(tmp_path, path)
    if now is None:
        path.unlink()
    else:
        path.write_text(now)
    assert kept.load(SAYS) == ("checked", "")


def test_handler_that_was_not_recorded_is_loaded_from_the_disk(tmp_path: Path) -> None:
    """A process that keeps nothing, and one of a supervisor that has kept nothing."""
    _run(LOAD + SAYS, str(_empty(tmp_path)), json.dumps([str(_write(tmp_path, "disk"))]), "[]")


def _empty(folder: Path) -> Path:
    path = folder / "empty"
    path.write_bytes(b"")
    return path


def test_tracebacks_and_getsource_show_the_path_and_the_text_that_was_checked(tmp_path: Path) -> None:
    path = _write(tmp_path, "checked")
    kept = Kept(tmp_path, path)
    path.write_text("# another\n" * 50)
    (source, file, trace), _ = kept.load("""
import inspect, traceback
try:
    kinds[0].fail(None)
except RuntimeError as error:
    text = "".join(traceback.format_exception(error))
print(json.dumps([inspect.getsource(kinds[0]), sys.modules[kinds[0].__module__].__file__, text]))
""")
    assert source.endswith("        raise RuntimeError\n")
    assert file == str(path)
    assert f'File "{path}", line 5, in fail\n    raise RuntimeError\n' in trace


def test_modules_of_its_folder_are_kept_and_so_are_packages_and_namespaces(tmp_path: Path) -> None:
    """With relative imports, and a module that is imported late but was seen."""
    for name, text in {
        "beside.py": "WORD = 'beside'",
        "pack/__init__.py": "from .inner import WORD",
        "pack/inner.py": "from . import deeper\nWORD = deeper.WORD",
        "pack/deeper.py": "WORD = 'deeper'",
        "space/part.py": "WORD = 'part'",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    path = tmp_path / "mine.py"
    path.write_text(
        "import gaiod, beside, pack, space.part\n"
        "class Mine(gaiod.Handler):\n    says = [beside.WORD, pack.WORD, space.part.WORD]\n"
        "    def late(self):\n        import pack.inner, beside\n        return [pack.inner.WORD, pack.__path__]\n"
    )
    kept = Kept(tmp_path, path, path=(tmp_path,))
    for each in [*tmp_path.rglob("*.py")]:
        each.unlink()
    for folder in ("pack", "space"):
        (tmp_path / folder).rmdir()
    printed, logged = kept.load("print(json.dumps([kinds[0].says, kinds[0].late(None)]))")
    assert printed == [["beside", "deeper", "part"], ["deeper", [str(tmp_path / "pack")]]]
    assert not logged


def test_package_may_be_the_handler(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("WORD = 'relative'")
    path = tmp_path / "__init__.py"
    path.write_text("import gaiod\nfrom . import helper\nclass Mine(gaiod.Handler):\n    says = helper.WORD\n")
    kept = Kept(tmp_path, path)
    path.unlink()
    (tmp_path / "helper.py").unlink()
    assert kept.load(SAYS) == ("relative", "")


def test_source_may_have_another_encoding_and_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    text = "# -*- coding: latin-1 -*-\r\n" + HANDLER.format(says="\u00fc").replace("\n", "\r\n")
    path.write_bytes(text.encode("latin-1"))
    kept = Kept(tmp_path, path)
    path.unlink()
    printed, _ = kept.load(
        "import inspect\nprint(json.dumps([kinds[0].says, inspect.getsource(kinds[0]).count('\\r')]))"
    )
    assert printed == ["\u00fc", 0]


def test_link_is_followed_when_the_configuration_is_read_and_not_later(tmp_path: Path) -> None:
    """As releases are switched: `current` is a link."""
    for release in ("one", "two"):
        (tmp_path / release).mkdir()
        _write(tmp_path / release, release)
    link = tmp_path / "current"
    link.symlink_to("one")
    kept = Kept(tmp_path, link / "mine.py")
    link.unlink()
    link.symlink_to("two")
    assert kept.load(SAYS) == ("one", "")


def test_two_listeners_with_one_file_have_one_version_of_it(tmp_path: Path) -> None:
    """It is executed for each, as ever, and was read once."""
    path = _write(tmp_path, "checked")
    text = path.read_text() + f"open({str(path)!r}, 'a').write('# executed\\n')\n"
    path.write_text(text)
    kept = Kept(tmp_path, path, f"{path}:Mine")
    assert kept.digests[str(path)] == kept.digests[f"{path}:Mine"]
    printed, _ = kept.load("import inspect\nprint(json.dumps(inspect.getsource(sys.modules[kinds[0].__module__])))")
    assert printed == text


def test_byte_code_of_another_python_is_made_anew(tmp_path: Path) -> None:
    kept = Kept(tmp_path, _write(tmp_path, "checked"))
    data = kept.file.read_bytes()
    size = int.from_bytes(data[:8], "big")
    head = json.loads(data[8 : 8 + size])
    text = json.dumps({**head, "magic": "00"}).encode()
    before, _, after = data[8 + size :].rpartition(b"checked")  # the first one is in the source
    kept.file.write_bytes(len(text).to_bytes(8, "big") + text + before + b"garbled" + after)
    assert kept.load(SAYS) == ("checked", "")


def test_data_beside_a_module_is_read_from_the_disk(tmp_path: Path) -> None:
    """Files that are no modules are the handler's own business."""
    kept = Kept(tmp_path, _write(tmp_path, "checked"))
    (tmp_path / "words.txt").write_text("now")
    printed, _ = kept.load(
        "loader = sys.modules[kinds[0].__module__].__loader__\n"
        f"print(json.dumps(loader.get_data({str(tmp_path / 'words.txt')!r}).decode()))"
    )
    assert printed == "now"


# -- what is compared --------------------------------------------------------------------------------------


def _installed(folder: Path, text: str, name: str = "library.py") -> Path:
    path = folder / "site-packages" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


USES = "import gaiod, library\nclass Mine(gaiod.Handler):\n    says = library.WORD\n"
CHANGED = "print(json.dumps([kinds[0].says, changed]))"


def test_installed_module_that_is_another_is_loaded_logged_once_and_counted(tmp_path: Path) -> None:
    library = _installed(tmp_path, "WORD = 'one'")
    path = tmp_path / "mine.py"
    path.write_text(USES)
    kept = Kept(tmp_path, path, path=(library.parent,))
    assert kept.load(CHANGED) == (["one", []], "")
    library.write_text("WORD = 'two'")
    printed, logged = kept.load(CHANGED)
    assert printed == ["two", [1]]
    assert logged == (
        f"gaiod.code: this process has loaded {library}: not what the configuration was checked with; "
        "run gaiod reload, or gaiod upgrade if gaiod itself was installed anew"
    )


def test_installed_module_that_was_only_touched_is_the_same(tmp_path: Path) -> None:
    library = _installed(tmp_path, "WORD = 'one'")
    path = tmp_path / "mine.py"
    path.write_text(USES)
    kept = Kept(tmp_path, path, path=(library.parent,))
    os.utime(library, ns=(1, 1))
    assert kept.load(CHANGED) == (["one", []], "")


def test_module_in_a_zip_file_is_compared_with_all_of_it(tmp_path: Path) -> None:
    archive = tmp_path / "libraries.zip"

    def pack(word: str) -> None:
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("library.py", f"WORD = {word!r}")

    pack("one")
    path = tmp_path / "mine.py"
    path.write_text(USES)
    kept = Kept(tmp_path, path, path=(archive,))
    assert kept.load(CHANGED) == (["one", []], "")
    pack("three")
    printed, logged = kept.load(CHANGED)
    assert printed == ["three", [1]]
    assert str(archive) in logged


def test_handlers_of_gaiod_itself_are_compared(tmp_path: Path) -> None:
    kept = Kept(tmp_path, "echo")
    head = json.loads(kept.file.read_bytes()[8:].partition(b"\0")[0])
    assert not head["files"]
    (path,) = (path for path in head["compared"] if path.endswith("handlers/echo.py"))
    head["compared"][path] = [0, 0, "another"]
    text = json.dumps(head).encode()
    kept.file.write_bytes(len(text).to_bytes(8, "big") + text)
    printed, logged = kept.load("print(json.dumps(changed))")
    assert printed == [1]
    assert path in logged


def test_module_that_a_hook_imports_late_is_loaded_from_the_disk_logged_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("import gaiod\nclass Mine(gaiod.Handler):\n    def late(self):\n        import unseen\n")
    kept = Kept(tmp_path, path, path=(tmp_path,))
    (tmp_path / "unseen.py").write_text("")
    printed, logged = kept.load("kinds[0].late(None)\nkinds[0].late(None)\nprint(json.dumps(changed))")
    assert printed == [1]
    assert logged == (
        f"gaiod.code: module unseen is imported late, from {tmp_path / 'unseen.py'}: not what the configuration was "
        "checked with; import it where the handler's file is loaded, at its top"
    )


def test_only_some_of_many_changed_files_are_named(tmp_path: Path) -> None:
    names = [f"library{number}" for number in range(5)]
    for name in names:
        library = _installed(tmp_path, "", f"{name}.py")
    path = tmp_path / "mine.py"
    path.write_text(f"import gaiod, {', '.join(names)}\nclass Mine(gaiod.Handler):\n    pass\n")
    kept = Kept(tmp_path, path, path=(library.parent,))
    for name in names:
        _installed(tmp_path, "# another", f"{name}.py")
    printed, logged = kept.load("print(json.dumps(changed))")
    assert printed == [5]
    assert "library2.py and 2 more: " in logged


# -- digests -----------------------------------------------------------------------------------------------


def test_digest_is_another_when_the_code_is_or_what_it_imports_and_of_no_other_handler(tmp_path: Path) -> None:
    """Whoever imported a module first: the second handler finds it imported already."""
    library = _installed(tmp_path, "")
    (tmp_path / "shared.py").write_text("import library")
    (tmp_path / "alone.py").write_text("")
    files = {}
    for name, needs in {"one": "shared", "two": "shared", "three": "alone", "four": "json"}.items():
        files[name] = tmp_path / f"{name}.py"
        files[name].write_text(f"import gaiod, {needs}\nclass Mine(gaiod.Handler):\n    pass\n")

    def changed(path: Path, text: str = "# more\n") -> set[str]:
        before = Kept(tmp_path, *files.values(), path=(tmp_path, library.parent)).digests
        path.write_text(path.read_text() + text)
        after = Kept(tmp_path, *files.values(), path=(tmp_path, library.parent)).digests
        return {Path(each).stem for each in before if before[each] != after[each]}

    assert changed(files["three"]) == {"three"}
    assert changed(tmp_path / "alone.py") == {"three"}
    assert changed(tmp_path / "shared.py") == {"one", "two"}
    assert changed(library) == {"one", "two"}
    assert changed(files["four"], "") == set()


def test_import_that_fails_and_is_survived_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "optional.py").write_text("raise ImportError")
    path = tmp_path / "mine.py"
    path.write_text(
        "import gaiod\ntry:\n    import optional\nexcept ImportError:\n    optional = None\n"
        "class Mine(gaiod.Handler):\n    says = optional\n"
    )
    assert Kept(tmp_path, path, path=(tmp_path,)).load("print(json.dumps([kinds[0].says]))") == ([None], "")


# -- bounds ------------------------------------------------------------------------------------------------


def test_more_source_than_a_mistake_has_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path, "large")
    small = RECORD.replace("recorder = ", "from gaiod import kept_code\nkept_code.KEPT_MAX_BYTES = 8\nrecorder = ")
    with pytest.raises(AssertionError, match=f"{path}: the modules of handlers have more than 0 MiB; install them as"):
        _run(small, str(tmp_path / "kept"), json.dumps([str(path)]), "[]")


# -- a process that runs on --------------------------------------------------------------------------------


def test_process_that_runs_on_loads_the_next_generations_code_and_what_runs_stays(tmp_path: Path) -> None:
    """As the feeder does over reloads."""
    (tmp_path / "beside.py").write_text("WORD = 'old'")
    library = _installed(tmp_path, "")
    path = tmp_path / "mine.py"
    path.write_text(
        "import gaiod, beside, library\nclass Mine(gaiod.Handler):\n    def says(self):\n        return beside.WORD\n"
    )
    old = Kept(tmp_path, path, path=(tmp_path, library.parent))
    (tmp_path / "beside.py").write_text("WORD = 'new'")
    library.write_text("# new")
    (tmp_path / "later").mkdir()
    new = Kept(tmp_path / "later", path, path=(tmp_path, library.parent))
    assert old.digests != new.digests
    printed, logged = old.load(f"""
changed.clear()
code.replace_with = KeptCode(os.open({str(new.file)!r}, os.O_RDONLY), changed.append)
code.replace_with.replace(code)
second = load_handler({str(path)!r})
print(json.dumps([kinds[0].says(None), second.says(None), changed]))
""")
    assert printed == ["old", "new", [1]]
    assert f"a process that runs on has loaded {library}" in logged
