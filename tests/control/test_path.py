"""The control socket is where both ends look for it, and in nobody else's folder."""

import os
import stat
from pathlib import Path

import pytest
from supervisor.support.users import NOBODY, root_only

from gaiod.control import path as module
from gaiod.control.path import FolderError, check_folder, control_path, make_folder

UID = os.geteuid()


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that takes the place of /tmp."""
    monkeypatch.setattr(module, "SHARED_FOLDER", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("environment", "uid", "path"),
    [
        ({}, 0, "/run/gaiod/control.sock"),
        ({"XDG_RUNTIME_DIR": "/run/user/0"}, 0, "/run/gaiod/control.sock"),
        ({"RUNTIME_DIRECTORY": "/run/gaiod-a"}, 0, "/run/gaiod-a/control.sock"),
        ({"RUNTIME_DIRECTORY": "/run/a:/run/b"}, 0, "/run/a/control.sock"),
        ({"RUNTIME_DIRECTORY": "/run/a", "XDG_RUNTIME_DIR": "/run/user/7"}, 7, "/run/a/control.sock"),
        ({"RUNTIME_DIRECTORY": ""}, 0, "/run/gaiod/control.sock"),
        ({"XDG_RUNTIME_DIR": "/run/user/7"}, 7, "/run/user/7/gaiod/control.sock"),
        ({"XDG_RUNTIME_DIR": ""}, 7, "/tmp/gaiod-7/control.sock"),
        ({}, 7, "/tmp/gaiod-7/control.sock"),
    ],
)
def test_path_follows_the_environment(environment: dict[str, str], uid: int, path: str) -> None:
    assert control_path(environment, uid) == path


def test_folder_below_tmp_is_made_for_its_user_alone(shared: Path) -> None:
    make_folder(f"{shared}/gaiod-{UID}/control.sock", UID)
    assert stat.S_IMODE((shared / f"gaiod-{UID}").stat().st_mode) == 0o700


def test_folder_of_ours_is_used_again(shared: Path) -> None:
    path = f"{shared}/gaiod-{UID}/control.sock"
    make_folder(path, UID)
    make_folder(path, UID)
    check_folder(path, UID)


def test_folder_that_is_missing_is_nobodys(shared: Path) -> None:
    check_folder(f"{shared}/gaiod-{UID}/control.sock", UID)


def test_system_folder_is_one_that_others_can_look_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SYSTEM_FOLDER", str(tmp_path / "gaiod"))
    make_folder(control_path({}, 0), 0)
    assert stat.S_IMODE((tmp_path / "gaiod").stat().st_mode) == 0o755


def test_folder_of_a_session_is_made(tmp_path: Path) -> None:
    path = control_path({"XDG_RUNTIME_DIR": str(tmp_path)}, 7)
    make_folder(path, 7)
    assert stat.S_IMODE((tmp_path / "gaiod").stat().st_mode) == 0o700


def test_folder_that_cannot_be_made_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(FolderError) as refused:
        make_folder(f"{tmp_path}/no/gaiod/control.sock", UID)
    assert str(refused.value) == (
        f"cannot make {tmp_path}/no/gaiod: No such file or directory; "
        "make it, or set control.listen to a path elsewhere"
    )


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701, 0o777])
def test_folder_that_others_can_enter_is_refused(shared: Path, mode: int) -> None:
    folder = shared / f"gaiod-{UID}"
    folder.mkdir()
    folder.chmod(mode)
    _assert_refused(folder)


@root_only
def test_folder_that_somebody_else_made_is_refused(shared: Path) -> None:
    folder = shared / f"gaiod-{UID}"
    folder.mkdir(0o700)
    os.chown(folder, NOBODY, NOBODY)
    _assert_refused(folder)


def test_link_to_a_folder_of_ours_is_refused(shared: Path) -> None:
    """Whose link it is decides where it goes tomorrow."""
    (shared / "elsewhere").mkdir(0o700)
    folder = shared / f"gaiod-{UID}"
    folder.symlink_to(shared / "elsewhere")
    _assert_refused(folder)


def test_file_in_place_of_the_folder_is_refused(shared: Path) -> None:
    folder = shared / f"gaiod-{UID}"
    folder.touch(0o700)
    _assert_refused(folder)


def _assert_refused(folder: Path) -> None:
    for look in (make_folder, check_folder):
        with pytest.raises(FolderError) as refused:
            look(f"{folder}/control.sock", UID)
        assert str(refused.value).startswith(f"{folder}: is not a folder of user {UID} alone (mode 0700): ")
        assert "remove it, set XDG_RUNTIME_DIR, or name another control socket" in str(refused.value)
