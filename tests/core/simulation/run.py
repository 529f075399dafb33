"""Run plans, one after the other, each in a kernel of its own."""

import gc
import sys
import traceback
from collections.abc import Iterable

from core.simulation.client import Client
from core.simulation.kernel import Kernel
from core.simulation.model import Model
from core.simulation.modules import simulated
from core.simulation.plan import plan_of
from core.simulation.setting import Fault, Plan


def failure_of(plan: Plan) -> str | None:
    """Do a plan; return what was wrong, None if nothing was."""
    return _run(plan, Kernel(plan.setting))


def trace_of(plan: Plan) -> tuple[str | None, list[object]]:
    """As `failure_of`, with what the kernel was asked and did."""
    kernel = Kernel(plan.setting)
    kernel.trace = []
    return _run(plan, kernel), kernel.trace


def _run(plan: Plan, kernel: Kernel) -> str | None:
    is_collecting, hook = gc.isenabled(), sys.unraisablehook
    gc.disable()  # a collection may come at any allocation, and so be elsewhere the next time
    sys.unraisablehook = lambda unraisable: kernel.unraised.append(unraisable.exc_value or Fault("unraisable"))
    try:
        model = Model(kernel)
        with simulated(kernel):
            client = Client(plan.setting, model)
            try:
                for step in plan.steps:
                    client.do(step)
                    client.check()
                client.end()
            except Exception as failure:
                return describe(failure)
            finally:
                client.abandon()
    finally:
        sys.unraisablehook = hook
        if is_collecting:
            gc.enable()
    return None


def describe(failure: Exception) -> str:
    """Return the kind of a failure and what it says, and where the watcher was."""
    lines = traceback.extract_tb(failure.__traceback__)
    inside = [f"{line.filename.rpartition('/')[2]}:{line.lineno} {line.name}" for line in lines]
    return f"{type(failure).__name__}: {failure}\n  " + " < ".join(reversed(inside[-6:]))


def first_failure(seeds: Iterable[int]) -> tuple[int, str] | None:
    """Return the first of the seeds that fails, and how; None: all pass."""
    for seed in seeds:
        failure = failure_of(plan_of(seed))
        if failure is not None:
            return seed, failure
    return None
