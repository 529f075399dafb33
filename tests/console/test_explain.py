"""What is said of one connection."""

from typing import Any

import pytest
from supervisor.support.explanations import CLIENT, CLOSED, CLOSED_TEXT, KERNEL, OPEN, OPEN_TEXT

from gaiod.console.explain import CAUSES, REASONS, explanation_text
from gaiod.stats.cells import CLOSE_REASONS, UNAVAILABLE_CAUSES


def _says(**side: Any) -> str:
    """Return what is said of a client's connection that differs from the usual in this."""
    return explanation_text({**OPEN, "sides": [{**CLIENT, **side}]})


def _pair(downstream: dict[str, Any], upstream: dict[str, Any]) -> str:
    server = {**CLIENT, "side": "upstream", "id": "3-1832", "peer": "192.0.2.9:80"}
    return explanation_text({**OPEN, "sides": [{**CLIENT, **downstream}, {**server, **upstream}]})


def test_open_connection_is_told_in_sentences() -> None:
    assert explanation_text(OPEN) == OPEN_TEXT


def test_kept_connection_is_told_with_its_generation() -> None:
    assert (
        "\n  Reloads have not changed its listener, so it stays with this worker, of generation 4.\n"
        in explanation_text({**OPEN, "kept": 4})
    )


@pytest.mark.parametrize(("times", "end"), [(1, "process 812."), (3, "process 812; it has moved 3 times.")])
def test_connection_that_another_worker_had_is_told_with_where_it_is_from(times: int, end: str) -> None:
    moved = {"ago_s": 3.0, "times": times, "worker": 1, "generation": 4, "process": 812}
    assert f"  Moved here 3.0s ago from worker 1, generation 4, {end}\n" in explanation_text({**OPEN, "moved": moved})
    assert "Moved" not in explanation_text({**OPEN, "moved": None})


def test_busy_connection_is_told_as_one_that_a_drain_waits_for() -> None:
    assert "\n  It is busy: an answer to it is outstanding" in explanation_text({**OPEN, "busy": True})
    assert "busy" not in explanation_text({**OPEN, "busy": False})


def test_closed_connection_is_told_in_sentences() -> None:
    assert explanation_text(CLOSED) == CLOSED_TEXT


def test_every_reason_has_a_sentence_of_its_own() -> None:
    assert REASONS.keys() == set(CLOSE_REASONS)
    assert len(set(REASONS.values())) == len(CLOSE_REASONS)


@pytest.mark.parametrize("reason", CLOSE_REASONS)
def test_reason_is_told_with_its_sentence(reason: str) -> None:
    text = explanation_text({**CLOSED, "reason": reason})
    assert f"is closed: {reason}\n  {REASONS[reason]}\n" in text


def test_reason_of_a_handlers_own_is_told_as_such() -> None:
    text = explanation_text({**CLOSED, "reason": "bored\x1b[2J"})
    assert "Its handler closed it, and calls that bored\\x1b[2J." in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("side", "sentence"),
    [
        (
            {"pending_bytes": 2**20, "blocked_s": 8.0, "writing": {"operation": "write", "deadline_in_s": 3.0}},
            "Writing: 1.0 MiB wait for the client, who has taken nothing for 8.0s; that ends in 3.0s at the latest.",
        ),
        (
            {"pending_bytes": 2**20, "blocked_s": 8.0},
            "TCP: the kernel gives it up when the client takes nothing for 2m 0s: user_timeout.",
        ),
        ({"pending_bytes": 100, "writing": {"operation": "write", "deadline_in_s": None}}, "100 B are being sent to"),
        ({"reading": None}, "Reading: the handler asks for nothing from the client now."),
        (
            {"reading": None, "kernel": {**KERNEL, "receive_queue_bytes": 2048}},
            "Reading: the handler asks for nothing from the client now; 2.0 KiB of it wait in the kernel.",
        ),
        ({"reading": None, "at_eof": True}, "Reading: the client has said that it sends no more."),
        (
            {"reading": {"operation": "read", "deadline_in_s": 2.0}},
            "Reading: it waits for data from the client; that ends in 2.0s at the latest.",
        ),
        ({"is_closing": True, "close_reason": "drain"}, "It is being closed (drain): once what waits has been sent."),
        ({"is_closing": True}, "It is being closed: once what waits has been sent."),
        ({"kernel": {**KERNEL, "tcp": {**KERNEL["tcp"], "window_probes": 4}}}, "the window of the client is closed: 4"),
        ({"kernel": {**KERNEL, "tcp": {**KERNEL["tcp"], "retransmits": 5}}}, "the client does not acknowledge: 5"),
    ],
)
def test_sentence_says_who_waits_for_whom(side: dict[str, Any], sentence: str) -> None:
    assert sentence in _says(**side)


def test_unix_socket_has_no_line_about_tcp() -> None:
    assert "TCP" not in _says(kernel={**KERNEL, "tcp": None})
    assert "TCP" not in _says(kernel={**KERNEL, "tcp": None}, pending_bytes=1, blocked_s=1.0)


def test_who_takes_its_bytes_is_not_said_to_be_given_up() -> None:
    assert "user_timeout" not in _says()


def test_proxied_connection_whose_server_does_not_read_says_so_on_both_sides() -> None:
    relay = {"operation": "relay", "deadline_in_s": 60.0, "limit_bytes": 2**18, "to": "3-1832"}
    text = _pair(
        {"reading": {**relay, "held_bytes": 2**17, "paused_s": 8.0}},
        {"reading": {**relay, "held_bytes": 0, "paused_s": None}, "pending_bytes": 2**17, "blocked_s": 9.0},
    )
    assert (
        "Reading: paused for 8.0s, because the server has not taken 128.0 KiB that are held for it (at most "
        "256.0 KiB); that ends in 1m 0s at the latest." in text
    )
    assert "the server: 192.0.2.9:80, connection 3-1832\n" in text
    assert "Writing: 128.0 KiB wait for the server, who has taken nothing for 9.0s." in text
    assert "Reading: it waits for data from the server, to pass it on to the client" in text


def test_connection_to_a_server_that_is_being_made_says_so() -> None:
    text = _pair({}, {"writing": {"operation": "connect", "deadline_in_s": 1.5}})
    assert "It is being connected; that ends in 1.5s at the latest." in text


@pytest.mark.parametrize(
    ("group", "sentence"),
    [
        ({"waiting_messages": 0, "waiting_bytes": 0, "behind_s": None}, "Subscribed to news, sport: nothing waits."),
        (
            {"waiting_messages": 12, "waiting_bytes": 2048, "behind_s": 8.0},
            "Subscribed to news, sport: 12 messages wait, 2.0 KiB of at most 1.0 MiB (disconnect); nothing was taken "
            "for 8.0s.",
        ),
        (
            {"topics": [""], "waiting_messages": 1, "waiting_bytes": 1, "behind_s": 0.0},
            "the only topic: 1 message waits",
        ),
    ],
)
def test_subscriber_is_told_with_what_waits_for_it(group: dict[str, Any], sentence: str) -> None:
    usual = {"topics": ["news", "sport"], "limit_bytes": 2**20, "policy": "disconnect"}
    assert sentence in _says(group={**usual, **group})


def test_what_the_handler_says_is_told_and_can_do_nothing_to_a_terminal() -> None:
    text = explanation_text({**OPEN, "notes": ["Its server is \x1b]0;db\x07."]})
    assert r"  Its server is \x1b]0;db\x07." in text
    assert "\x1b" not in text


def test_connection_that_is_never_idle_is_not_said_to_end_for_that() -> None:
    text = explanation_text({**OPEN, "busy": True, "is_never_idle": True})
    assert "If nothing moves" not in text
    assert "until then it is not idle, and idle_timeout does not end it." in text


@pytest.mark.parametrize("cause", UNAVAILABLE_CAUSES)
def test_lack_of_a_server_is_told_with_its_cause(cause: str) -> None:
    text = explanation_text({**CLOSED, "reason": "no_server", "cause": cause, "who": "server", "how": "error"})
    assert f"  {REASONS['no_server']}\n  {CAUSES[cause]}\n  Ended by: server; how: error ({cause}); phase: data" in text
