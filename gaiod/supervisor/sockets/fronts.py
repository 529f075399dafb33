"""Fronts: what the supervisor itself answers at, scrapes and operators; and the files of all sockets, looked after."""

import logging
import time

from gaiod.observe.http import Endpoint
from gaiod.process.socket_files import LOOK_INTERVAL_S
from gaiod.supervisor.opening import Opening
from gaiod.supervisor.operators.server import Control
from gaiod.supervisor.processes.fleet import Fleet
from gaiod.supervisor.sockets.bind import bound_address
from gaiod.supervisor.sockets.listeners import OpenListener

log = logging.getLogger("gaiod.supervisor")


class Fronts:
    """Opens the metrics endpoint and the control socket, and keeps every unix socket within reach."""

    def __init__(self, opening: Opening, fleet: Fleet, endpoint: Endpoint, control: Control) -> None:
        """Make them; nothing is answered yet.

        Args:
            opening: the sockets of all listeners.
            fleet: who serves most of them.
            endpoint: answers scrapes.
            control: answers operators.
        """
        self._opening = opening
        self._fleet = fleet
        self._endpoint = endpoint
        self._control = control
        self._metrics: OpenListener | None = None
        self._looked_s = time.monotonic()

    def serve_control(self) -> None:
        """Answer operators, if there is a control socket."""
        if self._opening.control is not None:
            self._control.open(self._opening.control.dup())
            log.info("control on %s", bound_address(self._opening.control))

    def serve_metrics(self, metrics: OpenListener) -> None:
        """Answer scrapes at other sockets than before, if they are others. Nothing may fail."""
        if self._metrics is None or self._metrics.sockets != metrics.sockets:
            if not self._serve_metrics(metrics):
                return
            log.info("metrics on %s", metrics.address)
        self._metrics = metrics

    def look_after_files(self) -> None:
        """Listen anew where the file of a socket was removed, if it is time to look."""
        if time.monotonic() - self._looked_s >= LOOK_INTERVAL_S:
            self.renew()

    def renew(self) -> None:
        """Listen anew where the file of a socket was removed, and have those served who connect there."""
        self._looked_s = time.monotonic()
        for listener in self._opening.listeners.renew():
            if listener is self._metrics:
                self._serve_metrics(listener)
            else:
                self._fleet.pass_socket(listener)
        control = self._opening.renew_control()
        if control is not None:
            try:
                self._control.open(control.dup())
            except OSError as error:
                log.error(
                    "the control socket was recreated but cannot be served: %s; restart with more descriptors",
                    error,
                )

    def _serve_metrics(self, metrics: OpenListener) -> bool:
        try:
            copies = [sock.dup() for sock in metrics.sockets]
        except OSError as error:
            log.error("metrics stay where they were: %s", error)
            return False
        self._endpoint.close()
        for copy in copies:
            self._endpoint.open(copy)
        return True
