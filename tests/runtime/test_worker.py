"""The worker by the name that it had up to 0.6."""

from pathlib import Path

from e2e.support.clients import echoes
from worker.support.workers import ECHO, started_worker


def test_older_supervisor_finds_the_worker(tmp_path: Path) -> None:
    with started_worker(tmp_path, ("-m", "gaiod.runtime.worker")) as worker:
        worker.serve(ECHO)
        assert echoes(worker.address())
