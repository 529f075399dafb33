"""How many CPUs this process may use, in trees of files that look like those of real machines."""

import os
from pathlib import Path

import pytest

from gaiod.config.cpus import usable_cpus

CPUS = 64

V2_MOUNT = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1_MOUNT = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct"
V1_OTHER_MOUNT = "33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset"
HYBRID_MOUNT = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"


@pytest.fixture(autouse=True)
def _large_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(CPUS)), raising=False)


def tree(root: Path, group: str, mounts: str, files: dict[str, str]) -> Path:
    """Make a root whose /proc/self says `group` and `mounts`, and whose /sys/fs/cgroup has these files."""
    for name, text in {"proc/self/cgroup": group, "proc/self/mountinfo": mounts}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    for name, text in files.items():
        (root / "sys/fs/cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "sys/fs/cgroup" / name).write_text(text + "\n")
    return root


def v2(root: Path, cpu_max: str) -> Path:
    return tree(root, "0::/a", V2_MOUNT, {"a/cpu.max": cpu_max})


def v1(root: Path, quota: str, period: str = "100000") -> Path:
    files = {"cpu,cpuacct/a/cpu.cfs_quota_us": quota, "cpu,cpuacct/a/cpu.cfs_period_us": period}
    return tree(root, "5:cpuset:/\n4:cpu,cpuacct:/a\n0::/", f"{V1_OTHER_MOUNT}\n{V1_MOUNT}", files)


def test_usable_cpus_of_this_machine_are_some_and_no_more_than_its_affinity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    assert 1 <= usable_cpus() <= len(os.sched_getaffinity(0))


def test_usable_cpus_are_those_of_the_affinity_without_control_groups(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path) == CPUS


def test_usable_cpus_are_the_cpu_count_when_the_system_has_no_affinity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert usable_cpus(tmp_path) == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cpus(tmp_path) == 1


QUOTAS_US = [
    ("100000", 1),
    ("100001", 2),
    ("150000", 2),
    ("200000", 2),
    ("1000", 1),
    ("6400000", CPUS),
    ("9000000", CPUS),
]


@pytest.mark.parametrize(("quota", "cpus"), QUOTAS_US)
def test_quota_counts_in_whole_cpus_rounded_up_and_no_more_than_the_affinity(
    tmp_path: Path, quota: str, cpus: int
) -> None:
    assert usable_cpus(v2(tmp_path / "2", f"{quota} 100000")) == cpus
    assert usable_cpus(v1(tmp_path / "1", quota)) == cpus


def test_quota_is_relative_to_its_period(tmp_path: Path) -> None:
    assert usable_cpus(v2(tmp_path / "2", "20000 10000")) == 2
    assert usable_cpus(v1(tmp_path / "1", "20000", "10000")) == 2


@pytest.mark.parametrize(
    "text",
    ["max 100000", "max", "", "200000", "2 1 1", "-1 100000", "0 100000", "1 0", "1 -1", "x y", "9" * 5000 + " 1"],
)
def test_cpu_max_that_is_no_quota_or_odd_sets_none(tmp_path: Path, text: str) -> None:
    assert usable_cpus(v2(tmp_path, text)) == CPUS


@pytest.mark.parametrize(
    ("quota", "period"), [("-1", "100000"), ("0", "100000"), ("1", "0"), ("", ""), ("max", "100000"), ("1", "x")]
)
def test_cfs_quota_that_is_no_quota_or_odd_sets_none(tmp_path: Path, quota: str, period: str) -> None:
    assert usable_cpus(v1(tmp_path, quota, period)) == CPUS


@pytest.mark.parametrize("level", ["a", "a/b", "a/b/c.service"])
def test_quota_of_any_group_above_counts(tmp_path: Path, level: str) -> None:
    files = {f"{each}/cpu.max": "max 100000" for each in ("a", "a/b", "a/b/c.service")}
    files[f"{level}/cpu.max"] = "300000 100000"
    assert usable_cpus(tree(tmp_path, "0::/a/b/c.service", V2_MOUNT, files)) == 3


def test_smallest_quota_on_the_way_counts_and_that_of_a_sibling_does_not(tmp_path: Path) -> None:
    files = {"a/cpu.max": "400000 100000", "a/b/cpu.max": "500000 100000", "a/x/cpu.max": "100000 100000"}
    assert usable_cpus(tree(tmp_path, "0::/a/b", V2_MOUNT, files)) == 4


def test_quota_of_a_container_that_sees_its_group_as_the_root(tmp_path: Path) -> None:
    assert usable_cpus(tree(tmp_path, "0::/", V2_MOUNT, {"cpu.max": "200000 100000"})) == 2


def test_quota_of_a_container_whose_mount_shows_only_its_own_group(tmp_path: Path) -> None:
    """As Docker did before control group namespaces: the path is the host's, the mount starts at it."""
    mount = r"32 31 0:29 /docker/a\134x2db /sys/fs/cgroup/cpu ro master:9 - cgroup cgroup rw,cpu,cpuacct"
    files = {"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}
    assert usable_cpus(tree(tmp_path, r"4:cpu,cpuacct:/docker/a\x2db", mount, files)) == 3


def test_both_versions_count_where_both_are_mounted(tmp_path: Path) -> None:
    groups, mounts = "1:cpu:/a\n0::/b", f"{V1_MOUNT}\n{HYBRID_MOUNT}"
    files = {
        "cpu,cpuacct/a/cpu.cfs_quota_us": "300000",
        "cpu,cpuacct/a/cpu.cfs_period_us": "100000",
        "unified/b/cpu.max": "200000 100000",
    }
    assert usable_cpus(tree(tmp_path / "v2 is less", groups, mounts, files)) == 2
    files["unified/b/cpu.max"] = "max 100000"
    assert usable_cpus(tree(tmp_path / "v1 is less", groups, mounts, files)) == 3


def test_group_with_a_colon_and_a_space_in_its_name_is_found(tmp_path: Path) -> None:
    assert usable_cpus(tree(tmp_path, "0::/a:b c", V2_MOUNT, {"a:b c/cpu.max": "100000 100000"})) == 1


@pytest.mark.parametrize(
    "group", ["0::/../other", "0::/gone (deleted)", "0::/elsewhere", "0::", "nonsense", "", "0:/a"]
)
def test_group_that_cannot_be_looked_at_sets_no_quota(tmp_path: Path, group: str) -> None:
    assert usable_cpus(tree(tmp_path, group, V2_MOUNT, {"a/cpu.max": "100000 100000"})) == CPUS


def test_group_outside_the_namespace_is_not_looked_for_beside_the_mount(tmp_path: Path) -> None:
    assert usable_cpus(tree(tmp_path, "0::/../a", V2_MOUNT, {"../a/cpu.max": "100000 100000"})) == CPUS


@pytest.mark.parametrize(
    "mounts",
    [
        "",
        "nonsense",
        "1 2 - cgroup2",
        "29 23 0:26 /else /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
        r"29 23 0:26 / /sys/fs/\000 rw - cgroup2 cgroup2 rw",
        "29 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw",
        V1_OTHER_MOUNT,
    ],
)
def test_mounts_that_show_no_group_of_this_process_set_no_quota(tmp_path: Path, mounts: str) -> None:
    assert usable_cpus(tree(tmp_path, "0::/a", mounts, {"a/cpu.max": "100000 100000"})) == CPUS


def test_file_that_cannot_be_read_sets_no_quota(tmp_path: Path) -> None:
    root = tree(tmp_path, "0::/a", V2_MOUNT, {"a/cpu.max/is/a/folder": ""})
    assert usable_cpus(root) == CPUS


def test_files_that_are_not_utf8_set_no_quota_and_their_other_lines_count(tmp_path: Path) -> None:
    root = v2(tmp_path, "200000 100000")
    for name in ("cgroup", "mountinfo"):
        file = root / "proc/self" / name
        file.write_bytes(b"\xff \xff:\xff - \xff\n" + file.read_bytes())
    assert usable_cpus(root) == 2
    (root / "sys/fs/cgroup/a/cpu.max").write_bytes(b"\xff\xff 100000\n")
    assert usable_cpus(root) == CPUS
