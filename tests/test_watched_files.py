"""The kinds of files that are read again while the daemon runs."""

from gaiod.config.file_readers import READERS
from gaiod.settings import AccessRule, ListenerSettings, NetworkTable
from gaiod.watched_files import KINDS

OLD, NEW = NetworkTable((1, 2)), {"v4": [3, 4], "v6": [5, 6], "unix": True}
ACCESS = KINDS["access"]


def listener(*rules: AccessRule) -> ListenerSettings:
    return ListenerSettings("front", "127.0.0.1:0", "echo", access=rules or None)


def test_every_kind_has_a_reader() -> None:
    assert KINDS.keys() == READERS.keys()


def test_access_rules_name_their_files() -> None:
    rules = (AccessRule(True, "file:/a", OLD), AccessRule(True, "10.0.0.0/8"), AccessRule(False, "file:/b", OLD))
    assert list(ACCESS.files_of(listener(*rules))) == [("/a",), ("/b",)]
    assert list(ACCESS.files_of(listener())) == []


def test_every_rule_of_a_file_has_what_it_has_now() -> None:
    rules = (AccessRule(True, "file:/a", OLD), AccessRule(False, "file:/b", OLD), AccessRule(False, "file:/a", OLD))
    table = NetworkTable((3, 4), (5, 6), unix=True)
    renewed = ACCESS.renewed(listener(*rules), ("/a",), NEW)
    assert renewed == listener(AccessRule(True, "file:/a", table), rules[1], AccessRule(False, "file:/a", table))


def test_settings_without_the_file_stay_what_they_are() -> None:
    before = listener(AccessRule(False, "file:/b", OLD))
    assert ACCESS.renewed(before, ("/a",), NEW) is before
    assert ACCESS.renewed(listener(), ("/a",), NEW) == listener()
