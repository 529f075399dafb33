"""Who the daemon runs as. What changes this process for good happens in children of it."""

import ctypes
import grp
import os
import pwd
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gaiod.settings import CertificateSettings, ListenerSettings, Settings, TlsSettings
from gaiod.supervisor.host import privileges
from gaiod.supervisor.host.privileges import PrivilegeError, check_start, drop
from supervisor.support.privileges import (
    NOBODY,
    OTHER,
    as_user,
    config_of_root,
    in_child,
    needs_root,
    refusal,
    settings,
)


def who() -> dict[str, Any]:
    """Return who this process is, and whether it can gain rights."""
    with open("/proc/self/status", "rb") as file:
        status = dict(line.split(":\t", 1) for line in file.read().decode().splitlines())
    return {
        "users": [int(uid) for uid in status["Uid"].split()],
        "groups": [int(gid) for gid in status["Gid"].split()],
        "further": sorted(int(gid) for gid in status["Groups"].split()),
        "capabilities": int(status["CapPrm"], 16) | int(status["CapEff"], 16),
        "no_new_privileges": status["NoNewPrivs"] == "1",
    }


def dropped(wanted: Settings) -> Callable[[], Any]:
    """Return work for a child: have root's groups, drop, and say who one is."""

    def work() -> Any:
        os.setgroups([0, OTHER.pw_gid])
        drop(wanted)
        return who()

    return work


@pytest.fixture(autouse=True)
def workers_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run on a Python in root's home."""
    monkeypatch.setattr(privileges, "NEEDED_BY_WORKERS", ())


# -- giving up -----------------------------------------------------------------------------------------


@needs_root
def test_drop_leaves_nothing_of_root() -> None:
    assert in_child(dropped(settings("nobody"))) == {
        "users": [NOBODY.pw_uid] * 4,
        "groups": [NOBODY.pw_gid] * 4,
        "further": sorted(os.getgrouplist("nobody", NOBODY.pw_gid)),
        "capabilities": 0,
        "no_new_privileges": True,
    }


@needs_root
def test_drop_takes_the_group_that_is_wanted_first() -> None:
    found = in_child(dropped(settings("nobody", grp.getgrgid(OTHER.pw_gid).gr_name)))
    assert found["users"] == [NOBODY.pw_uid] * 4
    assert found["groups"] == [OTHER.pw_gid] * 4
    assert found["further"] == sorted(os.getgrouplist("nobody", OTHER.pw_gid))


@needs_root
def test_drop_keeps_the_users_further_groups_whatever_group_comes_first() -> None:
    """`usermod -aG ssl-cert gaiod` must not stop working because of a `group:`."""
    members = [(group, group.gr_mem[0]) for group in grp.getgrall() if group.gr_mem and group.gr_mem[0] != "root"]
    if not members:
        pytest.skip("no user of this machine is in a further group")
    group, user = members[0]
    found = in_child(dropped(settings(user, grp.getgrgid(OTHER.pw_gid).gr_name)))
    assert found["groups"] == [OTHER.pw_gid] * 4
    assert group.gr_gid in found["further"]


@pytest.fixture
def everybodys() -> Iterator[Path]:
    """A folder that everybody may look into, as those above it."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@needs_root
def test_drop_survives_exec_and_a_program_that_would_give_root_back(everybodys: Path) -> None:
    """A setuid program, which would have been the way back."""
    everybodys.chmod(0o755)
    program = everybodys / "whoami"
    program.write_bytes(Path("/usr/bin/whoami").resolve().read_bytes())
    program.chmod(0o4755)

    def started_by(prepare: Callable[[], None]) -> Any:
        def work() -> Any:
            prepare()
            with os.popen(str(program)) as output:
                return output.read().strip()

        return in_child(work)

    def only_become_nobody() -> None:
        os.setuid(NOBODY.pw_uid)

    if started_by(only_become_nobody) != "root":
        pytest.skip(f"{everybodys} is mounted nosuid")
    assert started_by(lambda: drop(settings("nobody"))) == "nobody"


@needs_root
@pytest.mark.parametrize("wanted", [settings(), settings("root")], ids=["nobody named", "root named"])
def test_nothing_to_drop_is_only_never_gaining_rights(wanted: Settings) -> None:
    def work() -> Any:
        drop(wanted)
        return who()

    found = in_child(work)
    assert found["users"] == [0] * 4
    assert found["no_new_privileges"]


def test_drop_of_another_than_root_is_only_never_gaining_rights() -> None:
    user = pwd.getpwuid(os.geteuid()) if os.geteuid() else NOBODY

    def work() -> Any:
        drop(settings(user.pw_name))
        return who()

    found = as_user(user, work) if os.geteuid() == 0 else in_child(work)
    assert found["users"] == [user.pw_uid] * 4
    assert found["no_new_privileges"]


@needs_root
def test_drop_that_could_be_undone_is_refused() -> None:
    """With this securebit, capabilities outlive setuid(), and CAP_SETUID is the way back."""
    pr_set_securebits, no_setuid_fixup = 28, 1 << 2

    def work() -> None:
        assert ctypes.CDLL(None).prctl(pr_set_securebits, *map(ctypes.c_ulong, (no_setuid_fixup, 0, 0, 0))) == 0
        drop(settings("nobody"))

    assert in_child(work).startswith("user nobody could become root again: ")


@needs_root
def test_drop_without_the_capability_says_which() -> None:
    """Containers take them from root."""
    version_3 = 0x20080522

    def work() -> None:
        no_capabilities = (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(version_3, 0), no_capabilities) == 0
        drop(settings("nobody"))

    said = in_child(work)
    assert said.startswith("cannot become user nobody: Operation not permitted; root lacks CAP_SETUID or CAP_SETGID")


@needs_root
def test_drop_to_a_user_whose_workers_could_not_start_says_what_they_cannot_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.touch(mode=0o755)
    tmp_path.chmod(0o700)
    monkeypatch.setattr(privileges, "NEEDED_BY_WORKERS", ("/dev/null", str(python)))
    said = in_child(lambda: drop(settings("nobody")))
    assert said.startswith(f"user nobody cannot read {python}, which its workers are started from; install gaiod and ")


def test_drop_that_fails_to_forbid_gaining_rights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privileges, "PR_SET_NO_NEW_PRIVS", 0x7FFFFFFF)
    with pytest.raises(PrivilegeError, match=r"PR_SET_NO_NEW_PRIVS.*Invalid argument; allow prctl"):
        drop(settings())


# -- refusing to start ---------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration that is root's alone."""
    return config_of_root(tmp_path / "etc")


@needs_root
@pytest.mark.parametrize("user", [None, "root"])
def test_root_that_would_stay_is_refused_unless_it_is_allowed(config: Path, user: str | None) -> None:
    wanted = settings(user)
    assert refusal(wanted, config) == "gaiod would run as root; set user: in the configuration, or add --allow-root"
    check_start(wanted, config, allow_root=True)


@needs_root
@pytest.mark.parametrize("allow_root", [False, True])
def test_root_may_run_the_packaged_default(allow_root: bool) -> None:
    check_start(settings(), None, allow_root=allow_root)


@needs_root
@pytest.mark.parametrize("allow_root", [False, True])
def test_root_with_a_user_to_become_may_start(config: Path, allow_root: bool) -> None:
    check_start(settings("nobody"), config, allow_root=allow_root)


def test_user_that_is_unknown_is_refused(config: Path) -> None:
    assert refusal(settings("nemo-1"), config) == (
        "user: this machine has no user nemo-1; correct it, or make it: useradd --system nemo-1"
    )


def test_group_that_is_unknown_is_refused(config: Path) -> None:
    assert refusal(settings("nobody", "nemo-1"), config) == (
        "group: this machine has no group nemo-1; correct it, or make it: groupadd --system nemo-1"
    )


def test_group_without_a_user_is_refused(config: Path) -> None:
    assert refusal(settings(None, "daemon"), config, allow_root=True) == (
        "group: daemon is set without user:; set both, or neither"
    )


def _as_not_root(wanted: Settings, config: Path) -> Any:
    """Return what `check_start` says to another than root; None: it may start."""

    def work() -> None:
        check_start(wanted, config, allow_root=False)

    return as_user(NOBODY, work) if os.geteuid() == 0 else in_child(work)


def test_another_than_root_may_start_as_what_it_is(config: Path) -> None:
    """Who can change the configuration is then no matter of rights."""
    config.chmod(0o666)
    me = NOBODY if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    group = grp.getgrgid(me.pw_gid if os.geteuid() == 0 else os.getegid()).gr_name
    for wanted in (settings(), settings(me.pw_name), settings(me.pw_name, group)):
        assert _as_not_root(wanted, config) is None


def test_another_than_root_that_should_become_somebody_is_refused(config: Path) -> None:
    me = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    assert _as_not_root(settings("daemon"), config) == (
        f"user: daemon is set, but {me} has started gaiod, and only root can become another user; "
        "start it as root or as daemon, or remove user:"
    )
    told = _as_not_root(settings(me, "daemon"), config)
    assert told.startswith("group: daemon is set, but gaiod was started with group ")
    assert told.endswith("only root can change it; start it as root or with that group, or remove group:")


# -- files that are read again ---------------------------------------------------------------------------


def with_certificate(folder: Path, user: str | None = None) -> Settings:
    """Return settings that name a certificate, and a key that is its owner's alone."""
    (folder / "app.pem").touch(0o644)
    (folder / "app.key").touch(0o600)
    files = (f"{folder}/app.pem", f"{folder}/app.key")
    tls = TlsSettings((CertificateSettings("", "", ("example.org",), 4e9, files=files),))
    (listener,) = settings(user).listeners
    return replace(settings(user), listeners=(replace(listener, tls=tls),))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@needs_root
def test_key_that_the_user_of_the_daemon_cannot_read_is_told_with_the_remedy(open_folder: Path) -> None:
    key = open_folder / "app.key"
    group = grp.getgrgid(NOBODY.pw_gid).gr_name
    wanted = with_certificate(open_folder, "nobody")
    assert privileges.unreadable(wanted) == []
    (text,) = privileges.unreadable_later(wanted)
    assert text.startswith(f"{key}: user nobody cannot read it, so it stays as it was at the start")
    assert text.endswith(f"let its group: chgrp {group} {key}; chmod 640 {key}")
    assert as_user(NOBODY, lambda: privileges.unreadable(wanted)) == [text]
    os.chown(key, 0, NOBODY.pw_gid)
    key.chmod(0o640)
    assert privileges.unreadable_later(wanted) == []


@needs_root
def test_file_that_an_option_names_is_told_too(open_folder: Path) -> None:
    key = open_folder / "own.key"
    key.touch(0o600)
    options = {"servers": [{"tls": {"certificate": {"key": {"path": str(key), "text": "secret"}}}}]}
    listener = ListenerSettings("db", "127.0.0.1:0", "proxy", options=options)
    (text,) = privileges.unreadable_later(Settings((listener,), user="nobody"))
    assert text.startswith(f"{key}: user nobody cannot read it")


def test_nothing_is_told_of_a_user_that_nobody_becomes(open_folder: Path) -> None:
    assert privileges.unreadable_later(with_certificate(open_folder)) == []


@needs_root
def test_nothing_is_told_of_a_user_that_there_is_not(open_folder: Path) -> None:
    assert privileges.unreadable_later(with_certificate(open_folder, "no-such-user")) == []
