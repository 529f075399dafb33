"""What a seed does: a setting and a list of steps, all drawn before the run begins.

Each seed knows some kinds of steps only, and with weights of its own: what some do all the time, others never do.
"""

from collections.abc import Callable
from random import Random

from core.simulation.setting import Plan, Setting, Step
from gaiod.core.group import POLICIES
from gaiod.core.operations import ACCEPT, CONNECT, READ, RELAY, WRITE

STEPS_MIN, STEPS_MAX = 15, 45

SMALL = {
    "ACCEPTS_PER_PASS": 1,
    "BATCH_MAX": 2,
    "EVENTS_MAX": 2,
    "HOLES_MIN": 1,
    "PASSES_PER_POLL": 1,
    "PIPES_MAX": 1,
    "RECEIVES_FIRST": 1,
    "RECEIVES_MIN": 1,
    "SEND_MAX": 5,
    "SEND_ROUNDS": 1,
    "STALE_MIN": 0,
    "TURNS_MAX": 1,
    "TURN_MAX": 12,
    "VECTOR_MAX": 2,
}
"""Shares of the watcher's, as small as they still make sense: what takes megabytes takes bytes."""

BULK = {"BULK_AFTER": 1, "BULK_LEAST": 2, "BULK_MIN": 3, "PIPE_BYTES_MIN": 4}
"""When relays splice."""

WEIGHTS = {
    "send": 22, "take": 12, "read": 12, "write": 10, "relay": 6, "cancel": 4, "wait": 22, "settle": 4, "pass": 2,
    "fin": 2, "gone": 1, "rst": 1, "shut": 1, "close": 2, "abort": 1, "reset": 1, "drop": 1, "delegate": 3,
    "timer": 2, "untimer": 1, "post": 1, "listen": 1, "arrive": 6, "accept": 1, "connect": 3, "resolve": 4, "limit": 1,
    "refuse": 0.5,
    "thread": 4, "resume": 3, "shutdown": 0.3, "join": 5, "part": 2, "publish": 10, "stalled": 1,
}  # fmt: skip

PROFILES = (
    (),
    (),
    ("relay", "write", "cancel"),
    ("relay", "relay", "write", "write", "cancel", "cancel", "send", "take"),
    ("relay", "relay", "read", "cancel", "close", "abort", "send", "take", "fin", "gone", "rst"),
    ("thread", "thread", "thread", "resume", "resume", "read"),
    ("thread", "thread", "resume", "resume", "delegate", "read", "send"),
    ("thread", "thread", "resume", "resume", "shutdown", "delegate", "drop", "abort", "listen"),
    ("join", "publish", "publish", "part", "write", "close"),
    ("listen", "arrive", "arrive", "accept", "limit", "refuse", "abort", "connect", "resolve"),
)
"""What a seed may be about: steps that it has more of than others; nothing: a bit of everything."""

FOLLOWS = {
    "thread": ("wait", "wait", "wait", "resume", "shutdown"),
    "resume": ("read", "read", "read", "write", "wait"),
    "delegate": ("read", "relay", "join"),
    "send": ("wait",),
    "relay": ("send", "write", "write", "read"),
    "write": ("wait", "wait", "cancel"),
    "read": ("send", "wait", "cancel"),
    "wait": ("cancel", "resume", "resume", "resume", "take"),
    "cancel": ("settle",),
    "publish": ("wait", "write"),
    "arrive": ("arrive", "wait"),
    "timer": ("untimer",),
}
"""What often makes trouble one after the other."""

ALWAYS = {"send", "take", "wait", "settle"}

FROM_NETWORK = ("send", "take", "fin", "gone", "rst", "resolve", "arrive")
"""Steps that may come in the midst of a pass, whatever else a seed does."""

FROM_ELSEWHERE = (
    "read", "write", "relay", "cancel", "close", "abort", "reset", "shut", "drop", "delegate", "timer", "post",
    "connect", "listen", "accept", "shutdown",
)  # fmt: skip
"""Steps of finalizers, signal handlers and other threads, which may come there, too."""

APART = ("delegate", "connect", "listen", "arrive", "accept", "shutdown")
"""Of those, what has no place while a connection is detached: it makes others."""

TOPICS = ("a", "b")


class Planner:
    """Draws the steps of a seed."""

    def __init__(self, seed: int) -> None:
        self.dice = dice = Random(seed)
        self.forks = Random(seed)  # of its own: a child that does as it should changes nothing
        self.keys: list[int] = []
        self.listeners: list[int] = []
        self.next_key = 1
        self.last_key = 0
        self.is_unix = dice.random() < 0.3
        self.has_deadlines = dice.random() < 0.4
        self.about = about = dice.choice(PROFILES)
        self.has_threads = "thread" in about or dice.random() < 0.2
        self.is_by_line = dice.random() < 0.2
        self.constancy = dice.choice((0.3, 0.6, 0.9))
        self.bursts = dice.choice(((1,), (1, 1, 1, 1, 1, 3), (1, 1, 2, 6)))
        self.interrupts = dice.choice((0, 0, 0.2, 0.6))
        share = 0.2 if about else 0.55
        known = {
            name: weight * (1 + 3 * about.count(name))
            for name, weight in WEIGHTS.items()
            if name in ALWAYS or name in about or dice.random() < share
        }
        self.names = list(known)
        self.weights = [weight * dice.choice((0.5, 1, 2)) for weight in known.values()]
        self.from_elsewhere = [name for name in FROM_ELSEWHERE if name in known]
        self.favourites = ["delegate"] * dice.choice((1, 20)) if "delegate" in known else []
        self.draws: dict[str, Callable[[], Step]] = {
            name: getattr(self, f"draw_{name}") for name in (*WEIGHTS, "look") if hasattr(self, f"draw_{name}")
        }

    def plan(self) -> Plan:
        setting = self.setting()
        steps = [self.draw_delegate() for _ in range(self.dice.randint(1, 4))]
        if "listen" in self.names:
            steps.append(self.draw_listen())
        count = self.dice.randint(STEPS_MIN, STEPS_MAX)
        while len(steps) < count:
            name: str | None = self.dice.choices(self.names, self.weights)[0]
            while name is not None:
                steps += [self.draw(name)] * self.dice.choice((1, 1, 5) if name == "write" else self.bursts)
                name = self.next_of(name)
        if self.forks.random() < 0.1:
            steps.insert(self.forks.randrange(len(steps)), ("fork",))
        for _ in range(self.forks.choice((0, 0, 1, 4, 16))):
            steps.insert(self.forks.randrange(1, len(steps)), self.draw_away())
        return Plan(setting, tuple(steps))

    def draw_away(self) -> Step:
        """Return a step that changes nothing: what a seed does was drawn before, and is the same without it."""
        dice, self.dice = self.dice, self.forks
        names = [name for name in FROM_NETWORK + FROM_ELSEWHERE if name in self.names and name not in APART]
        steps = tuple(self.draw(self.dice.choice(names)) for _ in range(self.dice.choice((0, 0, 1, 3))))
        step = ("away", self.key(), steps)
        self.dice = dice
        return step

    def next_of(self, name: str) -> str | None:
        """Return a step to come right after one of that name, on the same connection as often as not; None: any."""
        if self.dice.random() < 0.4:
            return None
        names = [name for name in FOLLOWS.get(name, ()) if name in self.names]
        return self.dice.choice(names) if names else None

    def setting(self) -> Setting:
        dice = self.dice
        share = dice.choice((0.1, 0.4, 0.8))
        limits = [(name, value) for name, value in SMALL.items() if dice.random() < share]
        if "write" in self.about and dice.random() < 0.5:  # so that writes take several passes
            limits = [(name, 1 if name == "SEND_ROUNDS" else 5) for name in ("SEND_ROUNDS", "SEND_MAX")]
        if dice.random() < 0.5:
            limits += BULK.items()
        return Setting(
            is_eager=dice.random() < 0.5,
            shuffles=dice.random() < 0.2,
            late=dice.random() < 0.2,
            interrupted=dice.choice((0, 0, 0, 4)),
            splices=dice.random() < 0.8,
            pipe_room=dice.choice((8, 64)),
            limits=tuple(limits),
            policy=dice.choice(tuple(POLICIES)),
            limit=dice.choice((64, 64, 200)),
            memory_limit=dice.choice((400, 1000, 100_000)),
            report_closes=dice.random() < 0.5,
            report_hangups=dice.random() < 0.5,
            buffer_size=dice.choice((1, 7, 16, 64)),
        )

    def draw(self, name: str) -> Step:
        found = self.draws.get(name)
        return (name, self.key()) if found is None else found()

    def key(self) -> int:
        """Return a connection's: often that of the step before, for what happens to one at a time."""
        if self.dice.random() >= self.constancy or not self.keys:
            self.last_key = self.dice.choice(self.keys[-4:]) if self.keys else 0
        return self.last_key

    def new_key(self) -> int:
        key = self.next_key
        self.next_key += 1
        self.keys.append(key)
        self.last_key = key
        return key

    def size(self) -> int:
        return self.dice.choice((1, 2, 5, 10, 16, 40))

    def ms(self) -> int | None:
        return self.dice.choice((None, None, 0, 5, 20)) if self.has_deadlines else None

    def draw_delegate(self) -> Step:
        dice = self.dice
        rooms = dice.choice((4, 16, 64)), dice.choice((4, 16, 64))
        return ("delegate", self.new_key(), *rooms, self.is_unix, dice.choice((0, 5)))

    def draw_read(self) -> Step:
        is_full = self.dice.random() < 0.25
        return ("read", self.key(), self.size() if is_full or self.dice.random() < 0.3 else 0, is_full, self.ms())

    def draw_write(self) -> Step:
        return ("write", self.key(), self.size(), self.dice.choice(("bytes", "bytearray", "view", "view")), self.ms())

    def draw_relay(self) -> Step:
        source = self.key()
        self.last_key = self.dice.choice(self.keys[-4:]) if self.keys else 0
        return ("relay", source, self.last_key, self.dice.choice((1, 5, 16, 1000)), self.ms())

    def draw_cancel(self) -> Step:
        return ("cancel", self.key(), self.dice.choice((None, READ, WRITE, WRITE, WRITE, RELAY, ACCEPT, CONNECT)))

    def draw_connect(self) -> Step:
        return ("connect", self.new_key(), self.dice.choice((1, 1, 1, 2, 3)), self.ms())

    def draw_listen(self) -> Step:
        key = self.next_key
        self.next_key += 1
        self.listeners.append(key)
        return ("listen", key)

    def listener(self) -> int:
        return self.dice.choice(self.listeners) if self.listeners else 0

    def draw_accept(self) -> Step:
        return ("accept", self.listener())

    def draw_arrive(self) -> Step:
        return ("arrive", self.listener(), self.new_key()) if self.listeners else self.draw_send()

    def draw_resolve(self) -> Step:
        return ("resolve", self.key(), self.dice.random() < 0.7)

    def draw_send(self) -> Step:
        return ("send", self.key(), self.size())

    def draw_take(self) -> Step:
        return ("take", self.key(), self.size())

    def draw_timer(self) -> Step:
        return ("timer", self.dice.randrange(2), self.dice.choice((0, 3, 10)))

    def draw_untimer(self) -> Step:
        return ("untimer", self.dice.randrange(2))

    def draw_post(self) -> Step:
        return ("post",)

    def draw_join(self) -> Step:
        return ("join", self.key(), self.dice.choice(TOPICS))

    def draw_part(self) -> Step:
        return ("part", self.key(), self.dice.choice((None, *TOPICS)))

    def draw_publish(self) -> Step:
        return ("publish", self.dice.choice(TOPICS), self.dice.choice((1, 3, 10, 40)))

    def draw_stalled(self) -> Step:
        return ("stalled", self.dice.choice((0, 10)))

    def draw_limit(self) -> Step:
        return ("limit", self.dice.choice((0, 0, 1, 2, 500)))

    def draw_refuse(self) -> Step:
        return ("refuse", self.dice.choice((1, 2)))

    def draw_pass(self) -> Step:
        return ("pass", self.dice.choice((1, 10, 200)))

    def draw_shutdown(self) -> Step:
        return ("shutdown",)

    def draw_look(self) -> Step:
        return ("look", self.dice.choice((0, 10)))

    def draw_settle(self) -> Step:
        return ("settle",)

    def draw_wait(self) -> Step:
        dice = self.dice
        interrupts = []
        is_by_line = self.is_by_line and dice.random() < 0.5
        while dice.random() < self.interrupts:
            from_network = not self.from_elsewhere or dice.random() < 0.5
            name = dice.choice(FROM_NETWORK if from_network else self.from_elsewhere)
            step = self.draw(name)
            if not from_network and self.has_threads and dice.random() < 0.7:
                step = self.draw_resume() if dice.random() < 0.4 else ("thread", self.lines(), step)
            interrupts.append((dice.randrange(80) if is_by_line else dice.randrange(8), step))
        return (
            "wait", dice.choice((0, 0, 0, 1, 10, 150)), dice.randrange(1 << 20), is_by_line and bool(interrupts),
            tuple(interrupts),
        )  # fmt: skip

    def lines(self) -> int:
        """Return for how many lines the other thread goes on; negative: to the line after so many calls."""
        return self.dice.choice((1000, -1, -2, -2, -3, self.dice.randrange(1, 60)))

    def draw_resume(self) -> Step:
        return ("resume", self.dice.choice((1000, self.lines())))

    def draw_thread(self) -> Step:
        if not self.has_threads or not self.from_elsewhere:
            return self.draw_wait()
        return (
            "thread",
            self.lines(),
            self.draw(self.dice.choice((*self.from_elsewhere, *self.favourites, "look", "look"))),
        )


def plan_of(seed: int) -> Plan:
    """Return the plan of a seed."""
    return Planner(seed).plan()
