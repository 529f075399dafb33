"""Where sources listen and connect to. What is said of wrong addresses: see tests/config/refused/push-*.yaml."""

import pytest
from gaiod.handlers.push.addresses import check_bind, check_redis_url, has_password, without_password
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize("text", ["127.0.0.1:7080", "[::1]:65535", "[0::1]:7080", "unix:/run/gaiod/in.sock"])
def test_address_of_this_machine_alone_is_taken(text: str) -> None:
    check_bind(text)


@pytest.mark.parametrize(
    "text",
    ["", ":7080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:07080", "127.0.0.1:65536", "[::1]", "::1:7080", "1:7080",
     "[127.0.0.1]:7080", "[::ffff:10.0.0.1]:7080", "unix:", "unix:in", "unix:/a/", "unix:/a\n", "127.8.9.1:1",
     "169.254.0.1:7080", "127.0.0.1:0", "localhost:7080", "systemd:in"],
)  # fmt: skip
def test_other_address_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match="; write "):
        check_bind(text)


@pytest.mark.parametrize(
    "url",
    ["redis://a", "redis://a:6379/0", "redis://:p%40w@a/15", "rediss://user:pw@a.b:6380/0?ssl_ca_certs=/etc/ca.pem",
     "unix:///run/redis.sock", "unix://:pw@/run/redis.sock?db=3", "redis://[::1]:6379"],
)  # fmt: skip
def test_url_of_a_redis_is_taken(url: str) -> None:
    check_redis_url(url)


@pytest.mark.parametrize(
    "url",
    ["", "redis://", "redis:a", "redis://a:0", "redis://a:x", "redis://a:99999", "redis://a/x", "redis://a/0/1",
     "redis://[::1", "unix://a/run", "unix:", "redis://a/0#x", "redis://a/0?db=1", "unix:///a?password=x", "redis://a\n"],
)  # fmt: skip
def test_other_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match=r"; (write|nothing|db)") as refused:
        check_redis_url(url)
    assert "://a" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "said", "has"),
    [
        ("redis://:s3cret@a:6379/0", "redis://a:6379/0", True),
        ("redis://user:s3@cret@a/0", "redis://a/0", True),
        ("redis://user@a/0", "redis://a/0", False),
        ("unix://:s3cret@/run/redis.sock?db=1", "unix:///run/redis.sock?db=1", True),
    ],
)
def test_password_is_left_out_of_what_is_said(url: str, said: str, has: bool) -> None:
    assert (without_password(url), has_password(url)) == (said, has)


@given(
    st.text() | st.text().map(lambda text: f"unix:/{text}") | st.from_regex(r"\[?[0-9a-f.:]*\]?:[0-9]+", fullmatch=True)
)
def test_any_text_is_an_address_or_refused(text: str) -> None:
    for check in (check_bind, check_redis_url):
        try:
            check(text)
        except ValueError as error:
            assert "; " in str(error)
