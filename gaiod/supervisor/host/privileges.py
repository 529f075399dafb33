"""Who the daemon runs as: refused when it would be root by oversight, and root given up for good.

Root is needed for little (ports below 1024, a user to become) and is dangerous for everything else: handlers
are other people's code. What root executes, and the configuration that names it, must be root's alone.
"""

import ctypes
import grp
import os
import pwd
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gaiod.core.errors import GaiodError
from gaiod.log.setup import LogError, check_log
from gaiod.plugins import is_file
from gaiod.settings import Settings, files_in
from gaiod.watched_files import contents_of
from gaiod.wording import printable

PR_SET_NO_NEW_PRIVS = 38
"""Source: linux/prctl.h."""

NEEDED_BY_WORKERS = (sys.executable, __file__)
"""What a worker is started from; with a Python in root's home, nobody else can."""


class PrivilegeError(GaiodError):
    """The daemon would run with rights it should not have, or cannot give them up; the text says what to do."""


@dataclass(frozen=True, slots=True)
class _Identity:
    """Whom to become."""

    user: str
    uid: int
    gid: int


def check_start(settings: Settings, config: Path | None, *, allow_root: bool) -> None:
    """Refuse to start with rights that nobody can have meant, or that `drop` could not give up.

    Args:
        settings: what `config` says.
        config: the file they come from. None: the packaged default, which may run as root: it listens on loopback only
            and runs no handler but gaiod's own. Whoever can change that file can change the code beside it.
        allow_root: stay root when the settings name no user.

    Raises:
        PrivilegeError: and nothing was changed.
    """
    identity = _identity(settings)
    if os.geteuid() != 0:
        if identity is not None:
            _refuse_another(identity, settings)
        return
    if config is None:
        return
    if (identity is None or identity.uid == 0) and not allow_root:
        raise PrivilegeError("gaiod would run as root; set user: in the configuration, or add --allow-root")
    check_is_roots_alone(config)
    for listener in settings.listeners:
        if is_file(listener.handler):
            check_is_roots_alone(Path(listener.handler.partition(":")[0]))


def check_is_roots_alone(path: Path) -> None:
    """Refuse a file that somebody else than root could change, or replace by way of the folders above it.

    Raises:
        PrivilegeError: it is not root's alone.
    """
    try:
        for each in _ways_to(path):
            problem = _who_can_change(each)
            if problem:
                raise PrivilegeError(f"{path}: root would execute what others can change: {each} {problem}")
    except FileNotFoundError as error:
        raise PrivilegeError(f"{path}: {error.strerror}; give the path of a file that is there") from error
    except OSError as error:
        raise PrivilegeError(f"{path}: cannot tell who can change it: {error.strerror}; correct the path") from error


def rehearse(settings: Settings) -> None:
    """Try, in a child, what may fail once rights are given up: nobody could remove the files of sockets then.

    Raises:
        PrivilegeError: some cannot be given up.
        LogError: the log cannot be written without them.
    """
    if os.geteuid() != 0 or _identity(settings) is None:
        return

    def work() -> str:
        try:
            drop(settings)
            check_log(settings.log)
        except (PrivilegeError, LogError) as error:
            return f"{type(error).__name__} {error}"
        return ""

    kind, _, text = _in_child(work).partition(" ")
    if kind:
        raise (LogError if kind == LogError.__name__ else PrivilegeError)(text)


def unreadable(settings: Settings) -> list[str]:
    """Return what to say of files that the configuration names and that this process cannot read, one for each."""
    watched = (path for _, files, _ in contents_of(settings.listeners) for path in files)
    paths = dict.fromkeys((*watched, *(path for each in settings.listeners for path in files_in(each.options))))
    user, group = _user_name(os.geteuid()), _group_name(os.getegid())
    return [
        f"{printable(path)}: user {user} cannot read it, so it stays as it was at the start when it is renewed, and "
        f"reloads will fail; let its group: chgrp {group} {printable(path)}; chmod 640 {printable(path)}"
        for path in paths
        if not os.access(path, os.R_OK)
    ]


def unreadable_later(settings: Settings) -> list[str]:
    """Return the same for whom `drop` would become; nothing, if that cannot be known here."""
    if os.geteuid() != 0 or settings.user is None:
        return []

    def work() -> str:
        try:
            drop(settings)
        except PrivilegeError:
            return ""  # the account is for the start to look at
        return "\n".join(unreadable(settings))

    return _in_child(work).splitlines()


def _in_child(work: Callable[[], str]) -> str:
    """Return what some work has returned in a process of its own, which loses its rights."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.set_wakeup_fd(-1)
            os.write(writing, work().encode())
        finally:
            os._exit(0)  # what else goes wrong does so once more
    os.close(writing)
    with open(reading, "rb") as stream:
        said = stream.read().decode()
    os.waitpid(child, 0)
    return said


def drop(settings: Settings) -> None:
    """Become the user and group of the settings, for good, and never gain a right by executing a file again.

    To be called in the process's only thread, once everything is bound and before a worker is started. Without a
    user in the settings, or not as root, only the second happens. Children inherit both, and exec keeps them.

    Raises:
        PrivilegeError: some, all or none of the rights are given up: the process must end.
    """
    identity = _identity(settings)
    if identity is not None and os.geteuid() == 0:
        try:
            # The order matters: only root may do each of them. The user's further groups stay its own where `group`
            # names another first one, as with systemd's User= and Group=.
            os.initgroups(identity.user, identity.gid)
            os.setgid(identity.gid)
            os.setuid(identity.uid)
        except OSError as error:
            raise PrivilegeError(
                f"cannot become user {identity.user}: {error.strerror}; root lacks CAP_SETUID or CAP_SETGID here: "
                "grant them, or start gaiod as that user and remove user: and group:"
            ) from error
        _verify(identity)
        _check_workers_can_start(identity)
    if sys.platform == "linux":
        _set_no_new_privileges()


def give(path: Path, settings: Settings) -> None:
    """Let a socket file belong to whom `drop` will become, so that it can be reached then.

    To remove it then, that user must be able to write its folder.

    Raises:
        PrivilegeError: it cannot be given away.
    """
    identity = _identity(settings)
    if identity is None or os.geteuid() != 0:
        return
    try:
        _change_owner_of_socket(path, identity)
    except OSError as error:
        raise PrivilegeError(
            f"{path}: cannot be given to user {identity.user}: {error.strerror}; choose another folder for it, or "
            "grant CAP_CHOWN if root lacks it here"
        ) from error


def _identity(settings: Settings) -> _Identity | None:
    if settings.user is None:
        if settings.group is not None:
            raise PrivilegeError(f"group: {settings.group} is set without user:; set both, or neither")
        return None
    try:
        user = pwd.getpwnam(settings.user)
    except KeyError:
        raise PrivilegeError(
            f"user: this machine has no user {settings.user}; correct it, or make it: useradd --system {settings.user}"
        ) from None
    if settings.group is None:
        return _Identity(user.pw_name, user.pw_uid, user.pw_gid)
    try:
        return _Identity(user.pw_name, user.pw_uid, grp.getgrnam(settings.group).gr_gid)
    except KeyError:
        raise PrivilegeError(
            f"group: this machine has no group {settings.group}; correct it, or make it: "
            f"groupadd --system {settings.group}"
        ) from None


def _refuse_another(identity: _Identity, settings: Settings) -> None:
    if identity.uid != os.geteuid():
        raise PrivilegeError(
            f"user: {identity.user} is set, but {_user_name(os.geteuid())} has started gaiod, and only root can become "
            f"another user; start it as root or as {identity.user}, or remove user:"
        )
    if settings.group is not None and identity.gid != os.getegid():
        raise PrivilegeError(
            f"group: {settings.group} is set, but gaiod was started with group {_group_name(os.getegid())}, and only "
            "root can change it; start it as root or with that group, or remove group:"
        )


def _ways_to(path: Path) -> Iterator[Path]:
    """Yield a file and all folders that lead to it, as it is written and as its links are resolved."""
    for way in (Path(os.path.abspath(path)), Path(os.path.realpath(path))):
        yield way
        yield from way.parents


def _who_can_change(path: Path) -> str:
    """Say who else than root can change a file, or put another one into a folder, and the remedy; empty: nobody."""
    status = os.lstat(path)
    if status.st_uid != 0:
        return f"belongs to {_user_name(status.st_uid)}; chown root {path}"
    if stat.S_ISLNK(status.st_mode) or (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX):
        # A link's mode means nothing. In a sticky folder only a file's owner, or the folder's, renames or removes
        # it (man 7 inode): what is root's own on the way to `path` stays where it is.
        return ""
    if status.st_mode & stat.S_IWOTH:
        return f"can be written by everybody; chmod o-w {path}"
    if status.st_mode & stat.S_IWGRP and status.st_gid != 0:
        return f"can be written by group {_group_name(status.st_gid)}; chmod g-w {path}"
    return ""


def _verify(identity: _Identity) -> None:
    """Try to be root again, which must fail."""
    if identity.uid == 0:
        return
    try:
        os.setuid(0)
    except PermissionError:
        return
    raise PrivilegeError(
        f"user {identity.user} could become root again: capabilities outlive the change of user here (man 7 "
        "capabilities: securebits); start gaiod as that user and remove user: and group:"
    )


def _check_workers_can_start(identity: _Identity) -> None:
    for path in map(os.path.realpath, NEEDED_BY_WORKERS):
        if not os.access(path, os.R_OK):
            raise PrivilegeError(
                f"user {identity.user} cannot read {path}, which its workers are started from; install gaiod and its "
                "Python where everybody can read them, such as /opt, or let that user pass the folders above it"
            )


def _set_no_new_privileges() -> None:
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0))) != 0:
        why = os.strerror(ctypes.get_errno())
        raise PrivilegeError(
            f"cannot give up gaining rights (PR_SET_NO_NEW_PRIVS): {why}; allow prctl where it is denied"
        )


def _change_owner_of_socket(path: Path, identity: _Identity) -> None:
    """Change it, and nothing else: who may write the folder could have put a link to root's files in its place."""
    if sys.platform != "linux":
        os.chown(path, identity.uid, identity.gid, follow_symlinks=False)
        return
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise PrivilegeError(
                f"{path}: is no socket: somebody has put another file in its place; choose another folder"
            )
        os.chown(f"/proc/self/fd/{fd}", identity.uid, identity.gid)  # fchown() refuses what was opened with O_PATH
    finally:
        os.close(fd)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
