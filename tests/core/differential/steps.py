"""What is done, step by step, from a seed."""

from dataclasses import dataclass
from random import Random

GROUPS = 40

WEIGHTS = {
    "read": 8,
    "read into": 6,
    "read full": 6,
    "echo": 6,
    "write": 8,
    "write much": 2,
    "peer sends": 14,
    "peer receives": 8,
    "cancel reads": 1,
    "cancel writes": 1,
    "cancel": 1,
    "timer": 2,
    "timer cancelled": 1,
    "post": 1,
    "shut down": 0.4,
    "close": 0.5,
    "abort": 0.5,
    "forget": 0.2,
    "peer half-closes": 0.4,
    "peer closes": 0.4,
    "peer resets": 0.5,
    "begin again": 2,
}


@dataclass(frozen=True)
class Step:
    """One thing to do, to one connection.

    Attributes:
        size: bytes, where there are some.
        deadline: "none", "past" (data that is there still wins) or "far".
    """

    action: str
    conn: int
    size: int
    deadline: str


@dataclass(frozen=True)
class Plan:
    """Groups of steps. Between two groups everything settles; within one, nothing is waited for."""

    is_tcp: bool
    conns: int
    buffer_size: int
    groups: list[list[Step]]


def plan(seed: int) -> Plan:
    """Return the plan of a seed."""
    random = Random(seed)
    is_tcp = bool(seed % 2)
    conns = random.randint(1, 4)
    actions, weights = list(WEIGHTS), list(WEIGHTS.values())
    if is_tcp:
        # How much TCP takes of a write that does not fit is a matter of timing.
        weights[actions.index("write much")] = 0
    groups = [
        [
            Step(
                action,
                random.randrange(conns),
                random.choice((1, 7, 100, 1_000, random.randint(1, 2_000))),
                random.choices(("none", "past", "far"), (6, 1, 3))[0],
            )
            for action in random.choices(actions, weights, k=random.choice((1, 1, 2, 5)))
        ]
        for _ in range(GROUPS)
    ]
    return Plan(is_tcp, conns, random.choice((1, 50, 4_096, 65_536)), groups)
