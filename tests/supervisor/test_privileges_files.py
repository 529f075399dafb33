"""Files that root executes, and socket files that it gives away."""

import grp
import os
import socket
import stat
from pathlib import Path

import pytest

from gaiod.supervisor.host.privileges import PrivilegeError, check_is_roots_alone, check_start, give
from supervisor.support.privileges import NOBODY, OTHER, config_of_root, needs_root, refusal, settings

# -- files that are root's alone -----------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration that is root's alone."""
    return config_of_root(tmp_path / "etc")


def spoiled(how: str, path: Path) -> tuple[Path, str]:
    """Let others change a file, or replace it; return where, and what is said of it."""
    folder = path.parent
    theirs = "belongs to nobody; chown root {}"
    match how:
        case "file of another":
            os.chown(path, NOBODY.pw_uid, 0)
            return path, theirs
        case "file everybody can write":
            path.chmod(0o646)
            return path, "can be written by everybody; chmod o-w {}"
        case "file a group can write":
            os.chown(path, 0, OTHER.pw_gid)
            path.chmod(0o664)
            return path, f"can be written by group {grp.getgrgid(OTHER.pw_gid).gr_name}; chmod g-w {{}}"
        case "folder of another":
            os.chown(folder, NOBODY.pw_uid, 0)
            return folder, theirs
        case "folder everybody can write":
            folder.chmod(0o777)
            return folder, "can be written by everybody; chmod o-w {}"
        case "folder above":
            folder.parent.chmod(0o777)
            return folder.parent, "can be written by everybody; chmod o-w {}"
        case "sticky folder of another":
            folder.chmod(0o1777)
            os.chown(folder, NOBODY.pw_uid, 0)
            return folder, theirs
        case "sticky folder with a link of another":
            target = path.rename(folder.parent / "target.py")
            path.symlink_to(target)
            folder.chmod(0o1777)
            os.chown(path, NOBODY.pw_uid, 0, follow_symlinks=False)
            return path, theirs
    assert how == "link to a folder of another"
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    path.symlink_to(path.rename(elsewhere / "target.py"))
    elsewhere.chmod(0o777)
    return elsewhere, "can be written by everybody; chmod o-w {}"


WAYS = [
    "file of another",
    "file everybody can write",
    "file a group can write",
    "folder of another",
    "folder everybody can write",
    "folder above",
    "sticky folder of another",
    "sticky folder with a link of another",
    "link to a folder of another",
]


@needs_root
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("allow_root", [False, True])
def test_configuration_that_others_can_change_is_refused_to_root(config: Path, how: str, allow_root: bool) -> None:
    where, what = spoiled(how, config)
    said = refusal(settings("nobody"), config, allow_root)
    assert said == f"{config}: root would execute what others can change: {where} {what.format(where)}"


@needs_root
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("name", ["", ":Shout"])
def test_handler_that_others_can_change_is_refused_to_root(config: Path, tmp_path: Path, how: str, name: str) -> None:
    handler = tmp_path / "with space" / "lib" / "shout.py"
    handler.parent.mkdir(parents=True)
    handler.touch()
    wanted = settings("nobody", handler=f"{handler}{name}")
    check_start(wanted, config, allow_root=False)
    where, what = spoiled(how, handler)
    said = refusal(wanted, config)
    assert said == f"{handler}: root would execute what others can change: {where} {what.format(where)}"


@needs_root
def test_sticky_folder_of_root_is_fine(config: Path) -> None:
    """As /tmp: nobody else can put a file in the place of root's."""
    config.parent.chmod(0o1777)
    check_is_roots_alone(config)


@needs_root
def test_group_of_root_may_write(config: Path) -> None:
    config.chmod(0o664)
    config.parent.chmod(0o775)
    check_is_roots_alone(config)


@needs_root
def test_link_of_root_is_fine(config: Path) -> None:
    """Links have all modes; only what they lead to matters."""
    link = config.parent.parent / "link.yaml"
    link.symlink_to(config)
    check_is_roots_alone(link)


@needs_root
def test_relative_path_is_looked_at_where_it_is(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(config.parent)
    check_is_roots_alone(Path(config.name))
    config.parent.chmod(0o777)
    with pytest.raises(PrivilegeError, match="can be written by everybody"):
        check_is_roots_alone(Path(config.name))


def test_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PrivilegeError, match=r"no\.yaml: No such file or directory; give the path of a file that is t"):
        check_is_roots_alone(tmp_path / "no.yaml")


# -- socket files --------------------------------------------------------------------------------------


@pytest.fixture
def socket_file(tmp_path: Path) -> Path:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    return path


@needs_root
def test_socket_file_is_given_to_user_and_group(socket_file: Path) -> None:
    give(socket_file, settings("nobody"))
    assert (socket_file.stat().st_uid, socket_file.stat().st_gid) == (NOBODY.pw_uid, NOBODY.pw_gid)
    give(socket_file, settings("nobody", "daemon"))
    assert (socket_file.stat().st_uid, socket_file.stat().st_gid) == (NOBODY.pw_uid, grp.getgrnam("daemon").gr_gid)
    assert stat.S_ISSOCK(socket_file.stat().st_mode)


def test_socket_file_stays_whose_it_is_when_nothing_is_dropped(socket_file: Path) -> None:
    give(socket_file, settings())
    assert socket_file.stat().st_uid == os.geteuid()


@needs_root
def test_another_file_in_a_sockets_place_is_not_given_away(socket_file: Path, tmp_path: Path) -> None:
    """Who may write the folder could put a link to root's files there."""
    precious = tmp_path / "shadow"
    precious.touch()
    socket_file.unlink()
    socket_file.symlink_to(precious)
    with pytest.raises(PrivilegeError, match="is no socket"):
        give(socket_file, settings("nobody"))
    socket_file.unlink()
    socket_file.hardlink_to(precious)
    with pytest.raises(PrivilegeError, match="is no socket"):
        give(socket_file, settings("nobody"))
    assert precious.stat().st_uid == 0


@needs_root
def test_socket_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PrivilegeError, match=r"cannot be given to user nobody: No such file or directory; choose"):
        give(tmp_path / "x.sock", settings("nobody"))
