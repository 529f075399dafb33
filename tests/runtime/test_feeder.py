"""The feeder by the name that it had up to 0.6."""

from pathlib import Path

from feeder.support.feeders import started_feeder


def test_older_supervisor_finds_the_feeder(tmp_path: Path) -> None:
    with started_feeder(tmp_path, "gaiod.runtime.feeder") as feeder:
        feeder.begin()
        feeder.send({"stop": True})
        assert feeder.wait() == 0
