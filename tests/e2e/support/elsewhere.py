"""A copy of this Python and of gaiod in a folder that everybody may look into."""

import importlib.metadata
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from core.support.processes import REPOSITORY

VERSION = "python{}.{}".format(*sys.version_info)
NEVER_IMPORTED = ("site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "config-*")


@contextmanager
def python_for_everybody() -> Iterator[Path]:
    """Give the program of the copy, which has what gaiod requires and nothing else."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        library = folder / "lib" / VERSION
        shutil.copytree(sysconfig.get_path("stdlib"), library, ignore=shutil.ignore_patterns(*NEVER_IMPORTED))
        packages = library / "site-packages"
        for each in _required("gaiod") - {"gaiod"}:
            _copy(each, packages)
        _register(packages)
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / "gaiod", packages / "gaiod", ignore=ignore)
        shutil.copytree(REPOSITORY / "handlers", packages / "gaiod" / "handlers", ignore=ignore)
        shutil.copytree(REPOSITORY / "config", packages / "gaiod" / "default_config", ignore=ignore)
        if sysconfig.get_config_var("Py_ENABLE_SHARED"):
            for shared in Path(sysconfig.get_config_var("LIBDIR")).glob("libpython3*.so*"):
                shutil.copy2(shared, folder / "lib")
        program = folder / "bin" / VERSION
        program.parent.mkdir()
        shutil.copy2(os.path.realpath(sys.executable), program)
        yield program


def _required(name: str) -> set[str]:
    """Return the names of a distribution and of those it requires, without extras."""
    found = {name}
    for requirement in importlib.metadata.requires(name) or ():
        if ";" not in requirement:
            found |= _required(re.split(r"[^\w.-]", requirement)[0])
    return found


def _copy(name: str, packages: Path) -> None:
    for file in importlib.metadata.files(name) or ():
        if ".." not in file.parts and file.suffix not in (".pth", ".pyc"):
            target = packages / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file.locate(), target)


def _register(packages: Path) -> None:
    """Have the copy of gaiod known as installed: its handlers are found by their entry points."""
    here = importlib.metadata.distribution("gaiod")
    folder = packages / f"gaiod-{here.version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: gaiod\nVersion: {here.version}\n")
    (folder / "entry_points.txt").write_text(here.read_text("entry_points.txt") or "")
