"""Run seeds on the interpreted engine: `python -m core.simulation --seeds 10000 --first 0`, in tests/."""

import argparse
import sys
import time

from core.simulation.plan import plan_of
from core.simulation.run import failure_of
from core.simulation.shrink import report


def main() -> int:
    """Run seeds; print each that fails, shrunk."""
    parser = argparse.ArgumentParser(prog="python -m core.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first")
    parser.add_argument("--failures", type=int, default=1, help="stop after so many that fail")
    parser.add_argument("--whole", action="store_true", help="do not shrink")
    options = parser.parse_args()
    began_s = time.monotonic()
    failed = count = 0
    for seed in range(options.first, options.first + options.seeds):
        count += 1
        failure = failure_of(plan_of(seed))
        if failure is not None:
            failed += 1
            print(f"seed {seed}: {failure}" if options.whole else report(seed), flush=True)
            if failed == options.failures:
                break
    print(f"{count} seeds in {time.monotonic() - began_s:.1f} s, {failed} failed")
    return int(failed > 0)


sys.exit(main())
