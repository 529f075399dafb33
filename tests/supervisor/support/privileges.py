"""What tests of privileges share: settings, and children for what changes a process for good."""

import json
import os
import pwd
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gaiod.settings import ListenerSettings, Settings
from gaiod.supervisor.host.privileges import PrivilegeError, check_is_roots_alone, check_start

NOBODY = pwd.getpwnam("nobody")
OTHER = pwd.getpwnam("daemon")
"""Two users that every Linux has, neither of them root."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")


def settings(user: str | None = None, group: str | None = None, handler: str = "echo") -> Settings:
    """Return those of one listener."""
    listener = ListenerSettings(name="echo", bind="127.0.0.1:0", handler=handler)
    return Settings(listeners=(listener,), user=user, group=group)


def config_of_root(folder: Path) -> Path:
    """Make a configuration that is root's alone, if this is root."""
    folder.mkdir(mode=0o755)
    config = folder / "gaiod.yaml"
    config.touch(mode=0o644)
    if os.geteuid() == 0:
        try:
            check_is_roots_alone(config)
        except PrivilegeError as error:
            pytest.skip(f"the folder for temporary files is not root's alone: {error}")
    return config


def refusal(wanted: Settings, config: Path, allow_root: bool = False) -> str:
    """Return why the daemon may not start."""
    with pytest.raises(PrivilegeError) as refused:
        check_start(wanted, config, allow_root=allow_root)
    return str(refused.value)


def in_child(work: Callable[[], Any]) -> Any:
    """Return what `work` returns in a forked process, or the text of the PrivilegeError that it raises."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            try:
                answer = work()
            except PrivilegeError as error:
                answer = str(error)
            os.write(writing, json.dumps(answer).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return json.loads(answer)


def as_user(user: pwd.struct_passwd, work: Callable[[], Any]) -> Any:
    """Return what `work` returns in a child that has been this user from its start."""

    def become_and_work() -> Any:
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
        return work()

    return in_child(become_and_work)
