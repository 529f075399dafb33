"""The image's steps without an engine: the same commands, and the result run as a container is."""

import shutil
import subprocess
import sys
from pathlib import Path

from core.support.processes import REPOSITORY
from e2e.support.installed import clean_environment

from deploy.support.dockerfiles import Stage

LIMIT_S = 600

PRIVILEGES = (
    "--no-new-privs",
    "--bounding-set=-all",
    "--inh-caps=-all",
    "--clear-groups",
)

CONTAINER = """
set -eu
root=$1; venv=$2; base=$3; user=$4; group=$5; shift 5
mount --make-rprivate /
mount --bind "$root" "$root"
for folder in usr bin sbin lib lib64; do
    if [ -L "/$folder" ]; then ln -s "$(readlink "/$folder")" "$root/$folder"
    elif [ -d "/$folder" ]; then mkdir "$root/$folder"; mount -o bind,ro "/$folder" "$root/$folder"
    fi
done
mkdir "$root/proc" "$root/dev" "$root/tmp"
mount -t proc proc "$root/proc"
touch "$root/dev/null"
mount --bind /dev/null "$root/dev/null"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
for folder in "$base" "$venv"; do
    if [ ! -d "$root$folder" ]; then mkdir -p "$root$folder"; mount -o bind,ro "$folder" "$root$folder"; fi
done
mount -o remount,bind,ro "$root"
exec chroot "$root" setpriv --reuid="$user" --regid="$group" "$@"
"""
"""What an engine does with an image, --read-only, --tmpfs /tmp and --cap-drop ALL. The system's own programs stand for
the base image, and a virtual environment for its /usr/local. Before the last line it is root in a namespace."""


def make_python(folder: Path) -> Path:
    """Make a virtual environment, and return the folder of its programs."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=LIMIT_S)
    return folder / "bin"


class Builder:
    """Does a stage's steps in a folder, each absolute path of the image being one below it.

    Attributes:
        root: stands for the image's root.
    """

    def __init__(self, root: Path, **environment: str) -> None:
        """Begin with a Python and nothing else of its own. `environment`: more variables."""
        self.root = root
        self._programs = make_python(root / "venv")
        self._folder = root
        self._environment = environment
        if "PIP_NO_BUILD_ISOLATION" in environment:
            self.run("python -m pip install --quiet 'setuptools>=77'", wheels=root)

    @property
    def venv(self) -> Path:
        """Where its Python installs into."""
        return self.root / "venv"

    def copy(self, arguments: str) -> None:
        """Do a COPY of what git knows, or would if it were added: .dockerignore lets in no more."""
        *sources, target = arguments.split()
        into = self._place(target)
        for source in sources:
            for name in _known(source):
                if (REPOSITORY / source).is_dir():
                    place = into / Path(name).relative_to(source)
                else:
                    place = into / name if target.endswith("/") else into
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(REPOSITORY / name, place)

    def enter(self, folder: str) -> None:
        """Do a WORKDIR."""
        self._folder = self._place(folder)
        self._folder.mkdir(parents=True, exist_ok=True)

    def run(self, arguments: str, *, wheels: Path) -> subprocess.CompletedProcess[str]:
        """Do a RUN, with its paths in place of the image's, and no mount: `wheels` is where that would be."""
        command = " ".join(word for word in arguments.split(" ") if not word.startswith("--mount="))
        command = command.replace("/wheels", str(wheels))
        path = f"{self._programs}:/usr/bin:/bin"
        return subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self._folder,
            env=clean_environment(**{"PATH": path, **self._environment}),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    def _place(self, path: str) -> Path:
        return self.root / path.lstrip("/") if path.startswith("/") else self._folder / path


def _known(source: str) -> list[str]:
    """Return the files that git knows below a path of the repository, and those that are new."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", source]
    listed = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.splitlines()
    return [name for name in listed if (REPOSITORY / name).exists()]


def container(root: Path, venv: Path, stage: Stage, command: list[str]) -> list[str]:
    """Return the command that runs another as process 1 of an image made of a root, an environment and a last stage."""
    return [
        *("unshare", "--pid", "--fork", "--mount", "--uts", "--ipc"),
        *("sh", "-c", CONTAINER, "container", str(root), str(venv), sys.base_prefix),
        *_user(stage),
        *PRIVILEGES,
        *command,
    ]


def inside(pid: int, stage: Stage, command: list[str]) -> list[str]:
    """Return the command that runs another in a container, as `docker exec`. `pid`: of its process 1, from here."""
    user, group = _user(stage)
    return [
        *("nsenter", f"--target={pid}", "--mount", "--pid", "--root", "--wd"),
        *("setpriv", f"--reuid={user}", f"--regid={group}", *PRIVILEGES),
        *command,
    ]


def _user(stage: Stage) -> tuple[str, str]:
    user, _, group = stage.one("USER").partition(":")
    return user, group
