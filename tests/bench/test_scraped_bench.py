"""What being scraped costs is measured: the echo is whole while somebody scrapes, and a scrape is of everything."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from harness import scraped
from harness.processes import BenchError
from harness.runs import Bench, Row, run_load
from harness.scraped import ONE_WORKER, Answers, Served, run_scrapes, scrapes_table

pytest_plugins = ("bench_fixtures",)
BENCH = Path(__file__).parent


def test_worker_is_measured_while_it_is_scraped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    scrapes = []
    real = scraped.scrape

    def scrape(port: int, headers: Mapping[str, str]) -> tuple[int, bytes]:
        scrapes.append(port)
        return real(port, headers)

    monkeypatch.setattr(scraped, "scrape", scrape)
    run = run_load(bench, Served("scraped", bench.load_cpu, every_s=0.02), Row(10, 1024))
    assert run.messages >= 10
    assert run.cpu.run_ns > 0
    assert len(scrapes) >= 2


def test_nobody_scrapes_where_nobody_should(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scraped, "scrape", lambda *_: pytest.fail("it was scraped"))
    assert run_load(bench, Served("not scraped", bench.load_cpu), Row(10, 1024)).messages >= 10


def test_scrape_that_fails_is_an_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scraped, "scrape", lambda *_: (503, b""))
    with pytest.raises(BenchError, match=r"the scrapes ended with \[503.*where 200 was due"):
        run_load(bench, Served("scraped", bench.load_cpu, every_s=0.02), Row(1, 64))


def test_scrapes_are_measured_in_both_formats() -> None:
    found = run_scrapes(2, ONE_WORKER)
    assert list(found) == list(scraped.FORMATS)
    for each in found.values():
        assert each.series > 100
        assert len(each.wall_ms) == 2
        assert each.cpu_ms > 0


def test_table_says_what_a_thousand_series_take() -> None:
    head, row = scrapes_table({"text": Answers(500, [4.0, 6.0, 5.0], 3.25)})
    assert head.splitlines()[0] == "| scrape | series | ms (least-most) | CPU ms | ms/1000 series |"
    assert row == "| text | 500 | 5.0 (4.0-6.0) | 3.2 | 10.0 |"


def test_runner_refuses_what_it_does_not_know() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCH / "run.py"), "scrapes"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "'scrape'" in done.stderr
