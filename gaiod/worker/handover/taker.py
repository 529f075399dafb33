"""The worker that takes connections over: it builds what is offered, and begins to serve it when it is committed."""

import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import Any

from gaiod.core.connection import Conn
from gaiod.core.handover import Unit
from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher
from gaiod.process.dispatch import Target
from gaiod.process.peer_credentials import peer_uid
from gaiod.worker.handover.wire import (
    FORMAT,
    LOOK_S,
    NONSENSE,
    TOKEN_BYTES,
    FrameError,
    Link,
    Positions,
    close_all,
    header_of,
    receive_descriptors,
    word_of,
)
from gaiod.worker.listener import Listener
from gaiod.worker.names import Names

log = logging.getLogger("gaiod.worker")

DESCRIPTORS_LEFT = 64
"""Descriptors that stay free for new clients, when others' connections come."""


@dataclass(slots=True, eq=False)
class _Arrived:
    """A unit that was built, and is not committed."""

    listener: Listener
    unit: Unit


@dataclass(slots=True, eq=False)
class _Offer:
    """What was offered: `units` by their numbers, once they are built; `joined`: how far the feeds had come then.

    `sizes`: how many connections each unit has.
    """

    number: int
    message: dict[str, Any]
    quiet_s: float
    positions: dict[str, int]
    sizes: list[int]
    parts: list[bytes]
    descriptors: list[int]
    units: dict[int, _Arrived] = field(default_factory=dict)
    joined: dict[str, int] = field(default_factory=dict)


class Taker(Target):
    """Where workers hand their connections to this one. Only those of the same user may.

    Args:
        watcher: the worker's.
        listeners: whose connections it takes.
        names: of the worker's connections.
        positions: tells how far the feed has come.
        late: called with each client's connection that became this worker's although it is leaving.

    Attributes:
        is_leaving: it takes no more: others serve instead. Its owner's.
    """

    def __init__(
        self,
        watcher: Watcher,
        listeners: Sequence[Listener],
        names: Names,
        positions: Positions,
        late: Callable[[Listener, Conn], None],
    ) -> None:
        super().__init__(None, None)
        self.watcher = watcher
        self.listeners = {listener.name: listener for listener in listeners}
        self.names = names
        self.positions = positions
        self.late = late
        self.is_leaving = False
        self._links: dict[bytes, _Link] = {}
        self._descriptors = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._descriptors.bind("")  # the kernel finds a name that is no file, and nobody else's (man 7 unix)
        self._descriptors.setblocking(False)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            listening.bind("")
            listening.listen(1024)
            self.address = {"stream": _name_of(listening), "descriptors": _name_of(self._descriptors)}
            self._listening = watcher.accept(listening, context=self)

    def close(self) -> None:
        """Take no more, and give up what is not committed."""
        self.watcher.free(self._listening)
        for link in list(self._links.values()):
            link.end()
        self.receive_descriptors()
        self._descriptors.close()

    def receive_descriptors(self) -> None:
        """Let each link have what has come for it."""
        while (received := receive_descriptors(self._descriptors)) is not None:
            token, number, descriptors = received
            link = self._links.get(token)
            if link is None:
                close_all(descriptors)
            else:
                link.descriptors[number] = descriptors

    def lives(self) -> Callable[[int], bool]:
        """Return what tells whether a connection of some serial number is open here. It looks once, and if asked."""
        serials: set[int] = set()

        def tell(serial: int) -> bool:
            if not serials:
                serials.update(conn.serial for conn in self.watcher.connections())
            return serial in serials

        return tell

    def forget(self, token: bytes) -> None:
        """Take note that a link is over."""
        self._links.pop(token, None)

    def on_completion(self, result: OpResult) -> None:
        """Take a worker that has come."""
        conn = result.conn
        if result.operation is not OpType.ACCEPT or result.error is not None or conn is None:
            return
        if peer_uid(conn.fileno()) not in (None, os.geteuid()):
            conn.abort()
            return
        token = os.urandom(TOKEN_BYTES)
        self._links[token] = _Link(self, conn, token)


def _name_of(sock: socket.socket) -> str:
    name: bytes = sock.getsockname()
    return "\0" + name[1:].decode("ascii")


class _Link(Link):
    """The stream from one giver."""

    def __init__(self, taker: Taker, conn: Conn, token: bytes) -> None:
        super().__init__(conn, "hands its connections over")
        self.descriptors: dict[int, list[int]] = {}
        self._lifeline = -1
        self._taker = taker
        self._token = token
        self._waiting: list[_Offer] = []  # for the feed
        self._offers: dict[int, _Offer] = {}
        self._is_over = False
        conn.context = self
        taker.receive_descriptors()  # what anybody has sent must not leave too little room for this giver's
        self._say(self._hello())
        conn.read()

    def _hello(self) -> dict[str, Any]:
        positions = self._taker.positions()
        listeners = {}
        for name, listener in self._taker.listeners.items():
            if listener.hands_over:
                feed = positions.get(name)
                listeners[name] = {
                    "handler": listener.label,
                    "versions": listener.versions,
                    "feed": None if feed is None else feed[0],
                }
        return {"format": FORMAT, "token": self._token.hex(), "descriptors": _room(), "listeners": listeners}

    # -- what comes ------------------------------------------------------------------------------------

    def take(self, message: dict[str, Any], parts: list[bytes]) -> None:
        """As `Link.take`."""
        if "offer" in message:
            self._taker.receive_descriptors()
            number = index(message["offer"])
            if number in self._offers or number in [each.number for each in self._waiting]:
                raise FrameError(f"it makes offer {number} twice")
            quiet_s = float(message["quiet_s"])
            positions = {name: index(at) for name, at in dict(message["positions"]).items()}
            sizes = [len(unit["conns"]) for unit in message["units"]]
            descriptors = self._without_lifeline(self.descriptors.pop(number, []))
            self._waiting.append(_Offer(number, message, quiet_s, positions, sizes, parts, descriptors))
            self._look(None)
        elif "commit" in message:
            offer = self._offers[message["commit"]]
            kept = set(message["kept"])
            for i, number, told in message["messages"]:
                unit = offer.units[i].unit
                unit.expect(unit.conns[number], [(str(topic), parts[part]) for topic, part in told])
            del self._offers[offer.number]  # now that all makes sense: it is this worker's
            self._commit(offer, kept)

    def _without_lifeline(self, descriptors: list[int]) -> list[int]:
        """Return the descriptors of connections; the first one, which is the same for all offers, is kept once."""
        if descriptors and self._lifeline == -1:
            self._lifeline = descriptors[0]
        else:
            close_all(descriptors[:1])
        return descriptors[1:]

    def _look(self, result: OpResult | None) -> None:
        """Accept what is offered, once the feed has come as far as the giver's."""
        while self._waiting and not self._is_over:
            offer = self._waiting[0]
            own = self._taker.positions()
            if any(name in own and own[name][1] < at for name, at in offer.positions.items()):
                self._taker.watcher.timer(time.monotonic() + LOOK_S, context=self._look)
                return
            del self._waiting[0]
            refused = self._build(offer)
            self._offers[offer.number] = offer
            self._say({"accept": offer.number, "refused": refused, "positions": offer.joined})

    def _build(self, offer: _Offer) -> dict[str, str]:
        """Build what is offered; return what is refused, and why."""
        own = self._taker.positions()
        offer.joined = {name: own[name][1] for name in offer.positions if name in own}
        descriptors = offer.descriptors
        if self._taker.is_leaving or len(descriptors) != sum(offer.sizes):
            close_all(descriptors)
            why = "lost" if self._taker.is_leaving else "descriptors"
            return {str(i): why for i in range(len(offer.sizes))}
        refused: dict[str, str] = {}
        parcels: dict[Any, Any] = {}
        lives = self._taker.lives()
        first = 0
        for i, size in enumerate(offer.sizes):
            reason = self._build_unit(offer, i, descriptors[first : first + size], parcels, lives)
            first += size
            if reason:
                refused[str(i)] = reason
        return refused

    def _build_unit(
        self, offer: _Offer, i: int, descriptors: list[int], parcels: dict[Any, Any], lives: Callable[[int], bool]
    ) -> str:
        """Build one unit; return why it is refused, empty: it is not. What makes no sense costs no other unit."""
        told = offer.message["units"][i]
        try:
            listener = self._taker.listeners.get(told["listener"])
            reason = "version" if listener is None else listener.lack_of_room(told["version"])
            if reason or listener is None:
                return reason
            parts = [offer.parts[part] for part in told.get("parts", ())]
            traffic = [listener.traffic_of(is_client) for is_client in told["clients"]]
            headers = [header_of(header) for header in told.get("headers", [None] * offer.sizes[i])]
            origins = self._taker.names.read(told["names"], offer.message["from"], lives)
            states = [None if part is None else offer.parts[part] for part in told["states"]]
            partners = [
                None if number is None else range(offer.sizes[i])[number]
                for number in told.get("partners", [None] * offer.sizes[i])
            ]
            if {len(headers), len(origins), len(states), len(partners)} != {offer.sizes[i]}:
                raise ValueError("a unit has as many headers, names, states and partners as connections")
            own, descriptors = descriptors, []  # the watcher's from now on
            unit = self._taker.watcher.attach(told["conns"], own, parts, traffic=traffic, parcels=parcels)
        except NONSENSE as error:
            log.error("a connection that is handed over cannot be understood, and stays where it is: %s", error)
            return "version"
        finally:
            close_all(descriptors)
        for conn, header, origin in zip(unit.conns, headers, origins, strict=True):
            conn.proxy_header = header
            self._taker.names.keep(conn, origin)
        reason = listener.arrive(unit.conns, states, told["version"], partners)
        if reason:
            unit.release()
            for conn in unit.conns:
                self._taker.names.forget(conn)
        else:
            offer.units[i] = _Arrived(listener, unit)
        return reason

    def _commit(self, offer: _Offer, kept: set[int]) -> None:
        """Serve what is this worker's from now on."""
        paused_s = max(0.0, time.monotonic() - offer.quiet_s)
        for i, each in offer.units.items():
            if i in kept:
                self._hand_back(each)
            else:
                each.unit.resume()
                each.listener.came(each.unit.conns, paused_s)
                if self._taker.is_leaving:
                    self._taker.late(each.listener, each.unit.conns[0])

    def _hand_back(self, each: _Arrived) -> None:
        conns = each.unit.conns
        each.unit.release()
        each.listener.handed_back(conns)

    # -- the stream ------------------------------------------------------------------------------------

    def on_completion(self, result: OpResult) -> None:
        """The stream has ended. Only a read tells: a write fails before all that the giver has said is read."""
        if result.operation is OpType.READ and isinstance(result.error, (EOFError, OSError)):
            self._ended(result)

    def _ended(self, result: OpResult) -> None:
        """Find out what has become of the giver: if it has died, what it has not committed is this worker's."""
        if self._is_over:
            return
        word = word_of(self._lifeline) if self._lifeline != -1 else "back"
        if not word:  # it is ending at this moment, or is about to say that it has taken everything back
            self._taker.watcher.timer(time.monotonic() + LOOK_S, context=self._ended)
            return
        if word == "dead":
            for offer in self._waiting:
                self._build(offer)
                self._offers[offer.number] = offer
            self._waiting.clear()
            for offer in self._offers.values():
                self._count_missed(offer)
                self._commit(offer, set())
            self._offers.clear()
        self.end()

    def _count_missed(self, offer: _Offer) -> None:
        """Count what was published between an offer and its members' joining here: only the giver could have told."""
        for name, at in offer.joined.items():
            missed = at - offer.positions[name]
            units = [i for i, each in offer.units.items() if each.listener.name == name]
            if missed > 0 and any("topics" in conn for i in units for conn in offer.message["units"][i]["conns"]):
                self._taker.listeners[name].count_missed(missed)

    def give_up(self) -> None:
        """As `Link.give_up`: its giver lives, and goes on with what it has not committed."""
        self.end()

    def end(self) -> None:
        """End the link; what is not committed stays with the giver."""
        self._is_over = True
        for offer in self._offers.values():
            for each in offer.units.values():
                self._hand_back(each)
        self._offers.clear()
        self._taker.receive_descriptors()  # of an offer that was never said in full
        for offer in self._waiting:
            close_all(offer.descriptors)
        self._waiting.clear()
        if self._lifeline != -1:
            os.close(self._lifeline)
        for descriptors in self.descriptors.values():
            close_all(descriptors)
        self.descriptors.clear()
        self._taker.forget(self._token)
        if self._conn is not None:
            self._conn.abort()


def _room() -> int:
    """Return how many connections may come; less than 1: none, new clients need what is left."""
    most = os.sysconf("SC_OPEN_MAX")
    try:
        return most - len(os.listdir("/proc/self/fd")) - DESCRIPTORS_LEFT
    except FileNotFoundError:  # a system that does not tell
        return most
    except OSError:  # none is left to look with
        return 0
