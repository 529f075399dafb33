"""Where the control socket of a daemon is that was not told where: found the same way from both ends."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from gaiod.core.errors import GaiodError

FILE = "control.sock"
SYSTEM_FOLDER = "/run/gaiod"
SHARED_FOLDER = "/tmp"
"""Everybody can make folders there: one that somebody else made is not used."""


class FolderError(GaiodError):
    """The control socket's folder cannot be used; the text says why, and what to do."""


def control_path(environment: Mapping[str, str], uid: int) -> str:
    """Return the path that `control.listen: auto` means for a user.

    systemd's RuntimeDirectory= first, as the daemon and what its unit executes (ExecReload=) both see it.
    """
    if folders := environment.get("RUNTIME_DIRECTORY"):
        return f"{folders.partition(':')[0]}/{FILE}"
    if uid == 0:
        return f"{SYSTEM_FOLDER}/{FILE}"
    if folder := environment.get("XDG_RUNTIME_DIR"):
        return f"{folder}/gaiod/{FILE}"
    return f"{_own_folder(uid)}/{FILE}"


def make_folder(path: str, uid: int) -> None:
    """Make the folder of a path that `control_path` returned, if it is missing.

    Raises:
        FolderError: it cannot be made, or is somebody else's.
    """
    folder = os.path.dirname(path)
    try:
        # 0755: who may connect is the socket's to say, and a metrics socket may lie beside it.
        os.mkdir(folder, 0o755 if folder == SYSTEM_FOLDER else 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise FolderError(
            f"cannot make {folder}: {error.strerror}; make it, or set control.listen to a path elsewhere"
        ) from error
    check_folder(path, uid)


def check_folder(path: str, uid: int) -> None:
    """See to it that nobody else can have put the socket there; a folder that is missing is none's.

    Raises:
        FolderError: somebody can.
    """
    folder = Path(path).parent
    if str(folder) != _own_folder(uid):
        return
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or stat.S_IMODE(found.st_mode) != 0o700:
        raise FolderError(
            f"{folder}: is not a folder of user {uid} alone (mode 0700): whoever made it could pose as gaiod; "
            "remove it, set XDG_RUNTIME_DIR, or name another control socket"
        )


def _own_folder(uid: int) -> str:
    return f"{SHARED_FOLDER}/gaiod-{uid}"
