"""Descriptors: what listeners may need is compared with what a worker may have."""

import resource

import pytest

from gaiod.settings import ListenerSettings, Settings
from gaiod.supervisor.host.descriptors import OWN, PIPES, needed, warning

ECHO = ListenerSettings("echo", "127.0.0.1:0", "echo", connections_max=1000)
PROXY = ListenerSettings("db", "127.0.0.1:0", "proxy", connections_max=500, servers=("10.0.0.1:5432",))


@pytest.mark.parametrize(
    ("listeners", "expected"),
    [((ECHO,), 1000 + OWN + 3), ((PROXY,), 1000 + PIPES + OWN + 3), ((ECHO, PROXY), 2000 + PIPES + OWN + 3)],
    ids=["echo", "proxy", "both"],
)
def test_client_of_a_proxy_takes_two_and_relays_take_pipes(
    listeners: tuple[ListenerSettings, ...], expected: int
) -> None:
    assert needed(Settings(listeners), sockets=3) == expected


@pytest.mark.parametrize(("missing", "is_told"), [(1, True), (0, False), (-1, False)])
def test_limit_that_is_too_low_is_told_with_what_would_do(
    monkeypatch: pytest.MonkeyPatch, missing: int, is_told: bool
) -> None:
    settings = Settings((PROXY,))
    wanted = needed(settings, 1)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (wanted - missing, wanted - missing))
    text = warning(settings, 1)
    assert (text is not None) == is_told
    if text is not None:
        assert f"a worker may have {wanted - 1} descriptors, and needs {wanted}" in text
        assert f"LimitNOFILE={wanted}" in text


def test_no_limit_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda which: unlimited)
    assert warning(Settings((PROXY,)), 1) is None
