"""Sources: what a handler that says nothing has, and what a source that says nothing does."""

from typing import cast

import pytest

from gaiod import Handler, Outlet, Source


def test_handler_has_no_sources_and_leaves_messages_as_they_are_when_it_says_nothing() -> None:
    assert Handler.sources_of(None) == ()
    assert Handler.encode_message(None, "news", b"abc") == b"abc"


def test_source_may_be_stopped_when_it_says_nothing() -> None:
    Source().stop()


def test_new_worker_wants_no_last_messages_when_its_handler_says_nothing() -> None:
    assert not Handler.wants_last(None)


def test_source_without_a_beginning_says_so() -> None:
    with pytest.raises(NotImplementedError):
        Source().start(cast(Outlet, None))
