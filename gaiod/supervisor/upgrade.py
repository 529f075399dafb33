"""Replacing the whole daemon by another version of the program, without closing a listener.

The old daemon executes itself anew, as whatever is installed now, and hands over its listening
sockets by descriptor. The new one starts as ever, only that it finds its addresses open already, and
says when it serves. Then the old one drains and ends. If the new one does not get so far, nothing
has happened.
"""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher
from gaiod.process.channel import Channel
from gaiod.process.socket_files import Inode
from gaiod.supervisor.processes.bans import HandedOverBans
from gaiod.supervisor.processes.kept_closes import Inherited
from gaiod.supervisor.processes.seats import HandedOverSeats
from gaiod.supervisor.processes.shared_state import HandedOverValues
from gaiod.supervisor.processes.slots import Key, anonymous_file
from gaiod.supervisor.processes.ticket_keys import HandedOverKeys

log = logging.getLogger("gaiod.supervisor")

VARIABLE = "GAIOD_UPGRADE"
"""Holds the descriptor of the new daemon's end of the channel."""

FAILURE_VARIABLE = "GAIOD_UPGRADE_FAILURE"
"""Holds the descriptor of an anonymous file, into which the new daemon writes why it cannot serve. It may have no log
yet. On the channel, a daemon of up to 0.5 takes whatever comes for success."""

FAILURE_MAX_BYTES = 1 << 16
"""What is read of it."""

KILL_S = 2.0
"""What a new daemon that is given up has to end."""

TIMEOUT_S = 60.0
"""What the new daemon may take until it serves."""

SILENCE_S = 1.0
"""What a new daemon that has hung up may take to end, and an old one to hang up."""

HANDOVER_KEYS = ("to", "handover_timeout_s")
"""What the new daemon says of its workers, which take the old ones' connections."""

NOT_INHERITED = ("WATCHDOG_PID",)
"""It names this process; the new daemon feeds the same watchdog (man 3 sd_watchdog_enabled)."""


Sockets = dict[str, tuple[list[int], bool]]
"""Descriptors by where they are bound, and whether every worker serves all of them: `Listeners.handed_over`."""


@dataclass(frozen=True, slots=True)
class HandedOver:
    """What a daemon gives its successor.

    Attributes:
        sockets: those that listen.
        control: the control socket's descriptor, by its path as it is configured; empty if there is none.
        inodes: of the files of its unix sockets, by their paths.
        shared: what its workers share, listener by listener.
        feed: what its feeder leaves to the next one (`Feeding.handed_over`); None: there was none.
        instances: the numbers of its workers are up to this, those included that it may yet start: connections that
            come from them keep their names.
        closes: what is remembered of connections that closed.
        ticket_keys: those of TLS tickets.
        seats: where workers count for limits that are theirs together; None: there are none.
        bans: whom an operator has banned.
    """

    sockets: Sockets
    control: dict[str, int]
    inodes: dict[str, Inode | None] = field(default_factory=dict)
    shared: HandedOverValues = field(default_factory=list)
    feed: dict[str, Any] | None = None
    instances: int = 0
    closes: Inherited | None = None
    ticket_keys: HandedOverKeys = field(default_factory=dict, repr=False)
    seats: HandedOverSeats | None = None
    bans: HandedOverBans = field(default_factory=list)


def own_command(*arguments: str) -> list[str]:
    """Return what starts the program that is installed now as this one was, with other arguments.

    To be called early: it does not depend on the working directory any more, which may be swapped or removed.
    """
    before = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]
    if before[-1:] == sys.argv[:1]:  # a script, and neither -m nor -c
        before[-1] = os.path.abspath(before[-1])
    return [sys.executable, *before, *arguments]


class Upgrade:
    """The old daemon's side: it starts the new one.

    `done(status, text)` is called once: with 0 and its process, or an exit status and why it came to nothing.

    Attributes:
        handover: what `WorkerProcess.drain` is told of the new daemon's workers; one before 0.6.0 says nothing.
    """

    def __init__(
        self,
        watcher: Watcher,
        command: Sequence[str],
        handed_over: HandedOver,
        done: Callable[[int, str], None],
    ) -> None:
        """Start the program that is installed now.

        Args:
            watcher: the supervisor's.
            command: what starts it.
            handed_over: what it gets.
            done: called with the outcome.

        Raises:
            OSError: no process can be started.
        """
        self._watcher = watcher
        self._done: Callable[[int, str], None] | None = done
        self.handover: dict[str, Any] = {}
        ours, theirs = socket.socketpair()
        fds = [*(fd for each, _ in handed_over.sockets.values() for fd in each), *handed_over.control.values()]
        if handed_over.feed is not None:
            fds += [handed_over.feed["links"], handed_over.feed["journal"]]
        if handed_over.closes is not None:
            fds += [handed_over.closes["past"], *handed_over.closes["live"]]
        if handed_over.seats is not None:
            fds.append(handed_over.seats["fd"])
        environment = {key: value for key, value in os.environ.items() if key not in NOT_INHERITED}
        self._failure = anonymous_file("gaiod-failure")
        environment |= {VARIABLE: str(theirs.fileno()), FAILURE_VARIABLE: str(self._failure)}
        with theirs:
            try:
                self._process = subprocess.Popen(
                    command,
                    pass_fds=[theirs.fileno(), self._failure, *fds],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                )
            except BaseException:
                ours.close()
                os.close(self._failure)
                raise
        self._channel = Channel(watcher.delegate(ours), self._take)
        self._channel.send(asdict(handed_over))
        watcher.timer(time.monotonic() + TIMEOUT_S, context=self._too_late)

    @property
    def is_over(self) -> bool:
        """Whether the outcome was told. A new daemon that was given up may yet have to be reaped."""
        return self._done is None

    def share(self, key: Key, name: str, value: Any) -> None:
        """Let the new daemon know what a worker shares meanwhile; nothing once it serves: it has newer values then."""
        if self._done is not None:
            self._channel.send({"shared": [*key, name, value]})

    def cancel(self) -> None:
        """End the new daemon: this one is told to stop."""
        self._fail("this one was told to stop")

    def _take(self, message: dict[str, Any] | None) -> None:
        if message is not None:
            self.handover = {key: message[key] for key in HANDOVER_KEYS if key in message}
            self._end(0, str(self._process.pid))
        elif not self.reap():  # most likely it is about to end: how will be known in a moment
            self._watcher.timer(time.monotonic() + SILENCE_S, context=lambda result: self._fail("it hung up"))

    def _too_late(self, result: OpResult) -> None:
        self._fail(f"it did not serve within {TIMEOUT_S:g} s")

    def _fail(self, why: str) -> None:
        if self._done is not None:
            self._process.terminate()
            self._watcher.timer(time.monotonic() + KILL_S, context=lambda result: self._process.kill())
            self._end(os.EX_SOFTWARE, f"the new daemon, process {self._process.pid}, was given up: {why}")

    def _end(self, status: int, text: str) -> None:
        done, self._done = self._done, None
        if done is not None:
            self._channel.end()
            os.close(self._failure)
            done(status, text)

    def reap(self) -> bool:
        """See whether the new daemon has ended, and say so if it was not to."""
        status = self._process.poll()
        if status is None:
            return False
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
        if self._done is not None:
            text = f"the new daemon, process {self._process.pid}, ended {how} before it served"
            self._end(status if status > 0 else os.EX_SOFTWARE, f"{text}{self._why()}")
        return True

    def _why(self) -> str:
        """Return what the new daemon has written down, to be added to how it ended."""
        why = os.pread(self._failure, FAILURE_MAX_BYTES, 0).decode(errors="replace")
        return f":\n{why}" if why else "; the log or the daemon's standard error says why"


class Predecessor:
    """The new daemon's side: what the old one hands over.

    Attributes:
        sockets, control, inodes, shared, feed, instances, closes, ticket_keys, seats, bans: as they were given to
            `Upgrade`; an older daemon does not have all of them.
    """

    def __init__(self, fd: int, failure: int | None = None) -> None:
        """Receive it.

        Args:
            fd: our end of the channel.
            failure: the file for why this one cannot serve; None: the old daemon is one that does not ask.

        Raises:
            OSError: there is no old daemon any more.
        """
        self._failure = failure
        if failure is not None:
            os.set_inheritable(failure, False)
        self._channel = socket.socket(fileno=fd)
        self._channel.set_inheritable(False)
        self._channel.settimeout(TIMEOUT_S)
        self._stream = self._channel.makefile("rb")
        line = self._stream.readline()
        if not line:
            self.close()
            raise OSError("the old daemon ended before it had handed over its sockets")
        message = json.loads(line)
        self.sockets: Sockets = message["sockets"]
        self.control: dict[str, int] = message["control"]
        inodes: dict[str, list[int] | None] = message.get("inodes", {})
        self.inodes = {path: (each[0], each[1]) for path, each in inodes.items() if each is not None}
        self.feed: dict[str, Any] | None = message.get("feed")
        self.instances: int = message.get("instances", 0)
        self.closes: Inherited | None = message.get("closes")
        self.ticket_keys: HandedOverKeys = message.get("ticket_keys", {})
        self.seats: HandedOverSeats | None = message.get("seats")
        self.bans: HandedOverBans = [(network, until_s) for network, until_s in message.get("bans", ())]
        self.shared: HandedOverValues = [(name, label, values) for name, label, values in message.get("shared", ())]

    def close(self) -> None:
        """Hang up: to one that was not told that this one serves, it does not."""
        self._stream.close()
        self._channel.close()
        if self._failure is not None:
            os.close(self._failure)
            self._failure = None

    def tell_failure(self, text: str) -> None:
        """Tell why this one cannot serve, before it ends. The old one says so to whoever wanted the upgrade."""
        if self._failure is not None:
            _write_failure(self._failure, text)

    def tell_ready(self, handover: Mapping[str, Any]) -> list[tuple[Key, str, Any]]:
        """Have it end. If it has ended without that, this one serves all the same.

        Args:
            handover: to whom its workers hand their connections over; empty: to nobody.

        Returns:
            What its workers have shared since it handed over: the listener's key, the value's, and the value.
        """
        later = []
        try:
            self._channel.sendall(json.dumps({"ready": True, **handover}).encode() + b"\n")
            self._channel.settimeout(SILENCE_S)
            for line in self._stream:
                listener, label, name, value = json.loads(line)["shared"]
                later.append(((listener, label), name, value))
        except TimeoutError:
            pass  # it has said that much, and is busy
        except OSError as error:
            log.warning("the old daemon ended too early: %s", error.strerror or error)
        self.close()
        return later


def predecessor(environment: MutableMapping[str, str]) -> Predecessor | None:
    """Return the daemon that this one replaces, if it does; the variable is taken out of the environment.

    Raises:
        OSError: it is gone.
    """
    fd, failure = environment.pop(VARIABLE, None), environment.pop(FAILURE_VARIABLE, None)
    return None if fd is None else Predecessor(int(fd), None if failure is None else int(failure))


def tell_failure(environment: Mapping[str, str], text: str) -> None:
    """Tell the daemon that this one was to replace why it ends; before `predecessor` takes over what it handed over."""
    if FAILURE_VARIABLE in environment:
        _write_failure(int(environment[FAILURE_VARIABLE]), text)


def _write_failure(fd: int, text: str) -> None:
    os.pwrite(fd, text.encode(errors="backslashreplace"), 0)
