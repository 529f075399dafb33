"""Shrink a plan that fails: leave out what is not needed for it to fail (delta debugging, Zeller 2002)."""

import re
from collections.abc import Callable
from dataclasses import replace

from core.simulation.plan import plan_of
from core.simulation.run import failure_of
from core.simulation.setting import Plan, Setting, Step

Fails = Callable[[Plan], bool]


def shrink(plan: Plan, fails: Fails) -> Plan:
    """Return a plan that still fails, of which no step, interrupt or peculiarity can be left out."""
    while True:
        smaller = _without_steps(plan, fails)
        smaller = _without_interrupts(smaller, fails)
        smaller = _plainer(smaller, fails)
        if smaller == plan:
            return plan
        plan = smaller


def _without_steps(plan: Plan, fails: Fails) -> Plan:
    size = max(1, len(plan.steps) // 2)
    while True:
        first = 0
        while first < len(plan.steps):
            candidate = replace(plan, steps=plan.steps[:first] + plan.steps[first + size :])
            if fails(candidate):
                plan = candidate
            else:
                first += size
        if size == 1:
            return plan
        size //= 2


def _without_interrupts(plan: Plan, fails: Fails) -> Plan:
    for i, step in enumerate(plan.steps):
        for candidate in _simpler(step):
            smaller = replace(plan, steps=(*plan.steps[:i], candidate, *plan.steps[i + 1 :]))
            if fails(smaller):
                return _without_interrupts(smaller, fails)
    return plan


def _simpler(step: Step) -> list[Step]:
    """Return what may stand for a step, and does less."""
    if step[0] == "thread":
        return [step[2]]
    if step[0] != "wait":
        return []
    _, ms, salt, is_by_line, interrupts = step
    simpler: list[Step] = []
    for k, (number, inner) in enumerate(interrupts):
        before, after = interrupts[:k], interrupts[k + 1 :]
        simpler.append(("wait", ms, salt, is_by_line, before + after))
        simpler += [("wait", ms, salt, is_by_line, (*before, (number, least), *after)) for least in _simpler(inner)]
    if ms:
        simpler.append(("wait", 0, salt, is_by_line, interrupts))
    if salt > 1:
        simpler.append(("wait", ms, 1, is_by_line, interrupts))
    if is_by_line:
        simpler.append(("wait", ms, salt, False, interrupts))
    return simpler


def _plainer(plan: Plan, fails: Fails) -> Plan:
    """Have as many settings as possible be those of a plain kernel."""
    plain = Setting()
    setting = plan.setting
    for name in plain.__dataclass_fields__:
        candidate = replace(setting, **{name: getattr(plain, name)})
        if candidate != setting and fails(replace(plan, setting=candidate)):
            setting = candidate
    for limit in setting.limits:
        candidate = replace(setting, limits=tuple(other for other in setting.limits if other != limit))
        if fails(replace(plan, setting=candidate)):
            setting = candidate
    return replace(plan, setting=setting)


def script_of(plan: Plan) -> str:
    """Return a plan as Python, to be read, and to be run again."""
    plain = Setting()
    changed = [
        f"{name}={getattr(plan.setting, name)!r}"
        for name in plain.__dataclass_fields__
        if getattr(plan.setting, name) != getattr(plain, name)
    ]
    lines = "".join(f"    {step!r},\n" for step in plan.steps)
    return f"Plan(Setting({', '.join(changed)}), (\n{lines}))"


def kind_of(failure: str | None) -> str:
    """Return what a failure says, without the numbers and bytes in it."""
    return re.sub(r"[0-9]+|b'.*'|\[.*\]", "", (failure or "").partition("\n")[0])


def report(seed: int) -> str:
    """Return how a seed fails, and the shrunk script of that."""
    plan = plan_of(seed)
    failure = failure_of(plan)
    kind = kind_of(failure)
    small = shrink(plan, lambda plan: kind_of(failure_of(plan)) == kind)
    return f"seed {seed}: {failure}\n{script_of(small)}\n-> {failure_of(small)}\n"
