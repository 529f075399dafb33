"""Access rules as a file writes them. What is said of wrong ones: see refused/access-*.yaml."""

import os
from ipaddress import ip_address
from pathlib import Path

import pytest

from gaiod.config.admission.access import FILE_MAX_BYTES, NETWORKS_MAX, check_order, parse_rule, read_networks
from gaiod.config.errors import Refused
from gaiod.settings import AccessRule, NetworkTable


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("allow 10.0.0.0/8", AccessRule(True, "10.0.0.0/8")),
        ("deny  192.0.2.7", AccessRule(False, "192.0.2.7/32")),
        ("deny 2001:DB8::7", AccessRule(False, "2001:db8::7/128")),
        ("deny unix:", AccessRule(False, "unix:")),
        ("deny all", AccessRule(False, "all")),
    ],
)
def test_rule_is_a_verb_and_what_it_is_of(text: str, rule: AccessRule) -> None:
    assert parse_rule(text) == rule


def test_file_has_a_network_a_line(tmp_path: Path) -> None:
    path = tmp_path / "blocked.txt"
    path.write_text("# scanners\n10.0.0.0/8\n\n  192.0.2.7 # seen in May\r\n2001:db8::/32\n")
    v4 = (10 << 24, 11 << 24, *_alone("192.0.2.7"))
    table = NetworkTable(v4, (0x20010DB8 << 96, 0x20010DB9 << 96))
    assert parse_rule(f"deny file:{path}") == AccessRule(False, f"file:{path}", table)


def test_networks_of_a_file_are_ranges_in_order_and_apart(tmp_path: Path) -> None:
    path = tmp_path / "blocked.txt"
    path.write_text("10.0.1.0/24\nunix:\n10.0.0.0/24\n10.0.0.7\n192.0.2.7\n192.0.2.7\n10.0.3.0/24\n")
    v4 = (10 << 24, (10 << 24) + 512, (10 << 24) + 768, (10 << 24) + 1024, *_alone("192.0.2.7"))
    assert read_networks(str(path)) == NetworkTable(v4, unix=True)


def _alone(address: str) -> tuple[int, int]:
    number = int(ip_address(address))
    return number, number + 1


def test_file_may_be_empty(tmp_path: Path) -> None:
    """A program that keeps a list of whom to block begins with nobody."""
    path = tmp_path / "blocked.txt"
    path.touch()
    assert read_networks(str(path)) == NetworkTable()


def test_line_that_is_no_network_is_named(tmp_path: Path) -> None:
    path = tmp_path / "blocked.txt"
    path.write_bytes(b"10.0.0.0/8\n10.0.0.1/8\n")
    with pytest.raises(Refused, match=r"blocked\.txt, line 2: 10\.0\.0\.1/8 has bits beyond its prefix"):
        read_networks(str(path))
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(Refused, match=r"blocked\.txt, line 1: .* is not a network"):
        read_networks(str(path))


@pytest.mark.parametrize(
    ("lines", "why"), [(NETWORKS_MAX + 1, "has 100001 networks"), (FILE_MAX_BYTES // 8 + 1, "more than 8 MiB")]
)
def test_file_that_is_too_long_is_refused(tmp_path: Path, lines: int, why: str) -> None:
    path = tmp_path / "blocked.txt"
    path.write_text("1.2.3.4\n" * lines)
    with pytest.raises(Refused, match=why):
        read_networks(str(path))


@pytest.mark.parametrize("path", ["/nowhere/blocked.txt", "/proc/self/mem", "/a\0b"])
def test_file_that_cannot_be_read_is_refused(path: str) -> None:
    with pytest.raises(Refused, match="cannot read"):
        read_networks(path)


def test_what_is_no_regular_file_is_refused_without_being_opened(tmp_path: Path) -> None:
    path = tmp_path / "blocked.txt"
    os.mkfifo(path)
    for each in (path, tmp_path, "/dev/zero"):
        with pytest.raises(Refused, match=r"^cannot read [^ ]*: it is not a file; write the path of a list"):
            read_networks(str(each))


def test_rules_that_can_decide_something_are_in_order() -> None:
    check_order([parse_rule("allow 10.0.0.0/8"), parse_rule("deny all")])
    check_order([parse_rule("deny 10.0.0.0/8"), parse_rule("allow all")])
    check_order([parse_rule("deny 10.0.0.0/8")])
