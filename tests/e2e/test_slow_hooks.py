"""Slow hooks and listeners that rest, as an operator sees them."""

from pathlib import Path

from e2e.support.clients import connect, exchange
from e2e.support.handlers import IMPORTS, beside
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

SLEEPS = (
    IMPORTS
    + """
class Mine(gaiod.Handler):
    def on_open(self, conn):
        conn.read()

    def on_read(self, conn, result):
        time.sleep(0.3)
        conn.write(bytes(result.buffer))

    def on_write(self, conn, result):
        conn.read()
"""
)


def test_slow_hook_is_in_the_log_and_in_the_metrics_until_a_reload_says_otherwise(
    daemon: Start, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(SLEEPS)
    running = daemon(beside())

    def slow() -> float:
        return running.scrape().value("gaiod_handler_slow_hooks_total", handler="mine", hook="on_read")

    with connect(running.address("mine")) as sock:
        exchange(sock, b"first")
    wait_until(lambda: slow() == 1, "its count")
    assert f'{tmp_path / "mine.py"}", line ' in running.log()
    assert "on_read blocks its worker for" in running.log()
    (tmp_path / "gaiod.yaml").write_text(f"slow_hook: false\n{beside()}")
    assert running.ask("reload")["generation"] == 2, running.log()
    wait_until(lambda: {row["generation"] for row in running.ask("status")["workers"]} == {2}, "the old worker's end")
    with connect(running.address("mine")) as sock:
        exchange(sock, b"second")
        assert exchange(sock, b"third") == b"third"
    assert slow() == 1, running.log()
