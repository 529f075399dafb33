"""Run seeds on the engine of this process: `python -m core.differential FIRST COUNT`, one JSON log per line."""

import json
import sys
import traceback

from core.differential.run import Run
from core.differential.steps import plan


def main() -> None:
    """Print the log of each seed, or how it failed."""
    first, count = map(int, sys.argv[1:])
    for seed in range(first, first + count):
        try:
            log: object = Run(plan(seed)).log()
        except Exception:
            log = {"failed": traceback.format_exc()}
        print(json.dumps({"seed": seed, "log": log}))


main()
