"""How long is waited between attempts."""

from gaiod.process.backoff import Backoff


def test_pause_doubles_up_to_a_bound_and_begins_anew_after_a_success() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.take() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff.reset()
    assert (backoff.next_s, backoff.take(), backoff.next_s) == (0.5, 0.5, 1.0)
