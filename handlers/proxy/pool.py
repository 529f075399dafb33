"""The pool: which endpoints can take the next client, and which one does."""

import logging
import random
from collections.abc import Callable, Collection, Iterable
from math import inf
from typing import Any

from gaiod import AdminState

from .balance import balance_of
from .health import Passive
from .names import Answer
from .options import ProxyOptions
from .servers import Endpoint, Server

log = logging.getLogger("gaiod.handler.proxy")

SLOW_START_STEPS = 20
"""How often the weight of an endpoint that came back grows until it has its full share again."""


TLS_TOLD_S = 60.0
"""How often the log has it that TLS with an endpoint fails as before."""

TROUBLES_MAX = 3
"""Servers of which a client that waits is told what is wrong with them: with more, the log is the place to look."""


class Pool:
    """The endpoints of all servers.

    What changes rarely (who is down, ejected or full) is worked out when it changes, so that choosing only has
    to look at those that can take a client.

    Attributes:
        servers: as configured.
        queue: of the clients that wait for one of them; whoever makes the pool sets it.
        members: the endpoints that may get clients, backups included; where all are ejected, these all the same.
    """

    def __init__(
        self,
        name: str,
        options: ProxyOptions,
        servers: Iterable[Server],
        dice: random.Random,
        *,
        changed: Callable[[Endpoint], None] = lambda endpoint: None,
        speaks: Callable[[], bool] = lambda: True,
    ) -> None:
        """Make the pool of some servers.

        Args:
            name: the listener's, for the log.
            options: the proxy's.
            servers: as configured.
            dice: draws where it begins.
            changed: called when this worker has found out something about an endpoint's ejection.
            speaks: whether this worker logs what all workers see, each by its clock.
        """
        self.servers = tuple(servers)
        self.queue: Any = None
        self.members: list[Endpoint] = []
        self._open: list[list[Endpoint]] = [[], []]  # members whose server is not full: servers, backups
        self._name = name
        self._changed = changed
        self._speaks = speaks
        self._balance = balance_of(options.balance, dice)
        self._passive = Passive(options.passive)
        self._due_s = 0.0  # when to work it out again
        self._all_ejected = False
        for server in self.servers:
            server.pool = self
            for endpoint in server.endpoints:
                endpoint.current = dice.random() * endpoint.weight  # or the first client of all workers got the same

    # -- choosing ------------------------------------------------------------------------------------

    def choose(self, now_s: float, key: int, tried: Collection[Endpoint] = ()) -> Endpoint | None:
        """Return who gets a client; None: nobody can take it now.

        A server rather than a backup, somebody who was not tried rather than a server: a backup gets the client
        where all servers are unusable, full or tried.
        """
        if now_s >= self._due_s:
            self.refresh(now_s)
        servers, backups = self._open
        endpoints = servers or backups
        if tried:
            endpoints = _without(tried, servers) or _without(tried, backups) or endpoints
        if len(endpoints) > 1:
            return self._balance.choose(endpoints, key)
        return endpoints[0] if endpoints else None

    @property
    def is_waiting_worthwhile(self) -> bool:
        """Whether somebody may take a client soon where nobody can now: all are full, or names not known yet."""
        return bool(self.members) or any(not server.endpoints for server in self.servers)

    @property
    def lack(self) -> str:
        """Why nobody can take a client where nobody can, as the metric has it."""
        if self.members:
            return "full"
        if any(server.is_drained and not each.is_down for server in self.servers for each in server.endpoints):
            return "drained"
        return "down" if any(server.endpoints for server in self.servers) else "unresolved"

    def take(self, endpoint: Endpoint) -> None:
        """Count a connection that begins."""
        server = endpoint.server
        endpoint.active += 1
        server.active += 1
        if server.active >= server.connections_max:
            self._due_s = 0.0

    def give_back(self, endpoint: Endpoint) -> bool:
        """Count a connection that ended; tell whether that made room where there was none."""
        server = endpoint.server
        was_full = server.active >= server.connections_max
        endpoint.active -= 1
        server.active -= 1
        if was_full:
            self._due_s = 0.0
        return was_full

    # -- what becomes known ----------------------------------------------------------------------------

    def succeeded(self, endpoint: Endpoint, began_s: float, now_s: float) -> None:
        """Take note of a connect that succeeded; `began_s` says when it began."""
        if endpoint.failures or endpoint.ejections:
            before = self._passive.told(endpoint)
            self._passive.succeeded(endpoint)
            if endpoint.ejected_until_s and began_s >= endpoint.ejected_s:  # all are ejected, and used all the same
                self._end_ejection(endpoint, now_s, "a client was connected")
            elif self._passive.told(endpoint) != before:
                self._changed(endpoint)

    def failed(self, endpoint: Endpoint, now_s: float, why: str) -> None:
        """Take note of a connect that failed; `why` is for the log."""
        duration_s = self._passive.failed(endpoint, now_s)
        if duration_s:
            self._due_s = 0.0
            endpoint.trouble = f"it could not be connected to; {why}"
            self._warn(f"server {endpoint} is ejected for {duration_s:g} s: {endpoint.trouble}")
            self._changed(endpoint)
            self.refresh(now_s)

    def tls_failed(self, endpoint: Endpoint, now_s: float, why: str) -> None:
        """Log why TLS with an endpoint has failed: at once, as it will not pass by itself; the same once a minute."""
        if why != endpoint.tls_trouble or now_s - endpoint.tls_told_s >= TLS_TOLD_S:
            self._warn(f"server {endpoint}: {why}")
            endpoint.tls_told_s = now_s
        endpoint.tls_trouble = why

    def checked(self, endpoint: Endpoint, passed: bool, began_s: float, now_s: float) -> bool:
        """Take note of one active check, which began at `began_s`; tell whether the endpoint is back by that."""
        was_on_trial = endpoint.is_on_trial
        if not self._passive.checked(endpoint, passed, began_s):
            if endpoint.is_on_trial != was_on_trial:
                self._changed(endpoint)
            return False
        self._end_ejection(endpoint, now_s, "a check passed")
        return not endpoint.is_down

    def _end_ejection(self, endpoint: Endpoint, now_s: float, why: str) -> None:
        """Let an endpoint return before its time."""
        endpoint.ejected_until_s = 0.0
        self._passive.returned(endpoint, now_s)
        if not endpoint.is_down:
            self._say(f"server {endpoint} is up: {why}, which ends its ejection")
        self._changed(endpoint)
        self.refresh(now_s)

    def set_down(self, endpoint: Endpoint, why: str | None, now_s: float) -> None:
        """Take note of what the active checks add up to: None, or why the last one failed, and with it the server."""
        endpoint.is_known, endpoint.is_down = True, why is not None
        if why is not None:
            endpoint.trouble = f"its checks fail; {why}"
            self._warn(f"server {endpoint} is down: {endpoint.trouble}")
        else:
            self._say(f"server {endpoint} is up: its checks pass")
            self._passive.returned(endpoint, now_s)
        self.refresh(now_s)

    def resolved(self, server: Server, answer: Answer, now_s: float, *, is_news: bool = True) -> list[Endpoint]:
        """Take note of the addresses of a name; return the endpoints that are new.

        A failure changes nothing but where it comes with addresses: then they are an earlier answer's. `is_news`: this
        worker has looked it up, so it logs what is new.
        """
        if answer.error:
            if not server.lookup_failed and is_news:
                self._warn(f"server {server.label}: looking it up failed: {answer.error}; {_what_stays(server)}")
            server.lookup_failed = True
            if not answer.hosts:
                return []
        else:
            if server.lookup_failed and is_news:
                self._say(f"server {server.label}: it can be looked up again")
            server.lookup_failed = False
        known = {endpoint.target[0] for endpoint in server.endpoints}
        if known == set(answer.hosts):
            return []
        if is_news:
            self._say(f"server {server.label}: it is now {', '.join(answer.hosts)}")
        for endpoint in server.endpoints:
            endpoint.is_gone = endpoint.target[0] not in answer.hosts
        new = [Endpoint(server, (host, server.address.port)) for host in answer.hosts if host not in known]
        server.endpoints = [endpoint for endpoint in server.endpoints if not endpoint.is_gone] + new
        self.refresh(now_s)
        return new

    def warn_unknown(self, names: Iterable[str], waited_s: float) -> None:
        """Log that clients are accepted although nothing is known of some names."""
        which = ", ".join(names)
        self._warn(f"no answer for {which} within {waited_s:g} s: clients are accepted, and wait for a server")

    # -- what workers tell one another -----------------------------------------------------------------

    def find(self, name: str) -> Endpoint | None:
        """Return the endpoint of that name; None: there is none (any more)."""
        return next((each for server in self.servers for each in server.endpoints if str(each) == name), None)

    def told(self, endpoint: Endpoint) -> dict[str, Any] | None:
        """Return what other workers have to know of an endpoint's ejections."""
        return None if endpoint.is_gone else self._passive.told(endpoint)

    def recall_ejection(self, endpoint: Endpoint, told: dict[str, Any] | None, now_s: float) -> None:
        """Take over what another worker has told of an endpoint's ejections; then `refresh`."""
        self._passive.recall(endpoint, told, now_s)

    def recall_checks(self, endpoint: Endpoint, told: dict[str, Any] | None, now_s: float) -> None:
        """Take over what another worker's checks of an endpoint add up to; None: nothing. Then `refresh`."""
        endpoint.is_known = told is not None
        endpoint.is_down = told is not None and told["why"] is not None
        if told is None:
            return
        if endpoint.is_down:
            endpoint.trouble = f"its checks fail; {told['why']}"
        else:
            self._passive.recall_return(endpoint, told["up_s"], now_s)

    def set_admin_state(self, server: Server, state: AdminState, now_s: float) -> None:
        """Do what an operator wants of a server. One that was drained comes back as after an ejection: with little."""
        server.mode = state.mode
        server.weight = server.weight_configured if state.weight is None else state.weight
        if state.mode == "ready" and state.since_s:
            for endpoint in server.endpoints:
                self._passive.recall_return(endpoint, state.since_s, now_s)
        self.refresh(now_s)

    def troubles(self) -> list[str]:
        """Return what is wrong with the servers that get no clients, in sentences; of the first few."""
        found = []
        for server in self.servers:
            if server.is_drained:
                found.append(f"Server {server.label} gets no clients: an operator wants that.")
            for endpoint in server.endpoints:
                if endpoint.is_down or endpoint.ejected_until_s:
                    state = "down" if endpoint.is_down else "ejected"
                    found.append(f"Server {endpoint} is {state}: {endpoint.trouble}.")
        return found[:TROUBLES_MAX]

    # -- working it out --------------------------------------------------------------------------------

    def refresh_if_due(self, now_s: float) -> None:
        """Work out who can take clients, if something changed or it is time to: nobody may have come for long."""
        if now_s >= self._due_s:
            self.refresh(now_s)

    def refresh(self, now_s: float) -> None:
        """Work out who can take clients."""
        self._due_s = inf
        for server in self.servers:
            for endpoint in server.endpoints:
                self._see_to_time(endpoint, now_s)
            self._set_up(server)
        self.members = self._usable_members()
        self._open = [[], []]
        for endpoint in self.members:
            server = endpoint.server
            if server.active < server.connections_max:
                self._open[server.backup].append(endpoint)

    def _see_to_time(self, endpoint: Endpoint, now_s: float) -> None:
        """Let an endpoint return whose time has come, and one that has returned have its share."""
        if endpoint.ejected_until_s:
            if now_s < endpoint.ejected_until_s:
                self._due_s = min(self._due_s, endpoint.ejected_until_s)
                return
            endpoint.ejected_until_s = 0.0
            self._passive.returned(endpoint, now_s)
            if not endpoint.is_down and self._speaks():
                self._say(f"server {endpoint} returns")
        endpoint.weight = endpoint.server.weight
        if endpoint.returned_s is not None:
            self._passive.raise_weight(endpoint, now_s)
            self._due_s = min(self._due_s, now_s + self._passive.options.slow_start / SLOW_START_STEPS)

    def _set_up(self, server: Server) -> None:
        is_up = any(not endpoint.is_down and not endpoint.ejected_until_s for endpoint in server.endpoints)
        if server.is_up != is_up:
            server.is_up = server.stats.up = is_up

    def _usable_members(self) -> list[Endpoint]:
        """Return those that are neither drained, down nor ejected; and where all of those are ejected, these."""
        servers = (server for server in self.servers if not server.is_drained)
        usable = [each for server in servers for each in server.endpoints if not each.is_down]
        allowed = [endpoint for endpoint in usable if not endpoint.ejected_until_s]
        all_ejected = bool(usable) and not allowed
        if all_ejected and not self._all_ejected and self._speaks():
            self._warn("every server is ejected: clients are sent to them all the same")
        self._all_ejected = all_ejected
        return usable if all_ejected else allowed

    def _say(self, text: str) -> None:
        log.info("listener %s: %s", self._name, text)

    def _warn(self, text: str) -> None:
        log.warning("listener %s: %s", self._name, text)


def _without(tried: Collection[Endpoint], endpoints: list[Endpoint]) -> list[Endpoint]:
    return [endpoint for endpoint in endpoints if endpoint not in tried]


def _what_stays(server: Server) -> str:
    if not server.endpoints:
        return "clients wait"
    return f"it is still taken to be {', '.join(str(endpoint.target[0]) for endpoint in server.endpoints)}"
