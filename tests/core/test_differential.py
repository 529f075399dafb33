"""Both engines do the same: random operations from a seed, one log per engine, no difference."""

import json
import os
from typing import Any

import pytest

from core.support.processes import run_python
from core.support.waiting import compiled_only

FIRST = int(os.environ.get("GAIOD_TEST_SEED", "1"))
SEEDS = int(os.environ.get("GAIOD_TEST_SEEDS", "40"))
AT_ONCE = 10


def logs_of(engine: str, first: int, count: int) -> dict[int, Any]:
    """Return the log of each seed."""
    process = run_python("-m", "core.differential", str(first), str(count), engine=engine)
    assert process.returncode == 0, f"{engine}, seeds {first} to {first + count - 1}:\n{process.stderr[-3000:]}"
    return {entry["seed"]: entry["log"] for entry in map(json.loads, process.stdout.splitlines())}


def differences(one: Any, other: Any, where: str = "log") -> list[str]:
    """Return where two logs differ, and how."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [found for key in one for found in differences(one[key], other[key], f"{where} {key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [found for index, (a, b) in pairs for found in differences(a, b, f"{where} {index}")]
    return [] if one == other else [f"{where}: {one!r} != {other!r}"]


@compiled_only
@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, AT_ONCE))
def test_engines_log_the_same_for_the_same_seed(first: int) -> None:
    count = min(AT_ONCE, FIRST + SEEDS - first)
    compiled, interpreted = (logs_of(engine, first, count) for engine in ("compiled", "interpreted"))
    for seed in range(first, first + count):
        again = f"GAIOD_TEST_SEED={seed} GAIOD_TEST_SEEDS=1"
        for engine, log in (("compiled", compiled[seed]), ("interpreted", interpreted[seed])):
            assert "failed" not in log, f"seed {seed} on the {engine} engine ({again}):\n{log['failed']}"
        found = differences(compiled[seed], interpreted[seed])
        assert not found, f"seed {seed} ({again}), compiled != interpreted:\n" + "\n".join(found[:20])
