"""What an operator wants of servers, among what workers share."""

from dataclasses import asdict

import pytest

from gaiod import Handler
from gaiod.handler.admin_state import AdminState, admin_key, admin_states, server_of_key
from gaiod.testing import Share, Started, assert_script


def test_state_is_found_again_among_what_is_shared() -> None:
    state = AdminState("drain", 3, 17.5)
    shared = {"checks 10.0.0.1:1": 1, admin_key("10.0.0.1:1"): asdict(state), admin_key("db a"): asdict(AdminState())}
    assert admin_states(shared) == {"10.0.0.1:1": state, "db a": AdminState("ready", None, 0.0)}
    assert server_of_key(admin_key("x")) == "x"
    assert server_of_key("x") is None


def test_handler_cannot_share_what_looks_like_it() -> None:
    class Pretends(Handler):
        def on_start(self) -> None:
            self.share("gaiod", 1)
            with pytest.raises(ValueError, match="keys that begin with gaiod: are gaiod's own; choose another"):
                self.share(admin_key("x"), 1)

    assert_script(Pretends(), (Started(), [Share("gaiod", 1)]))
