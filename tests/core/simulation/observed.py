"""The watcher under test, with a look at what it does on nobody's behalf."""

from core.simulation.model import Model
from gaiod.core.connection import Conn
from gaiod.core.errors import DeadlineExceeded
from gaiod.core.operations import READ
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher


class Observed(Watcher):
    """A watcher that tells the model what becomes of the rests of relays, of which nobody else is told."""

    model: Model

    def _unlink(self, operation: OpResult) -> None:
        model = self.model
        op = model.unlinking = model.ops[operation.context]
        super()._unlink(operation)
        model.on_unlinked(op, operation.error)
        model.unlinking = None

    def _forget(self, conn: Conn) -> None:
        if not self.model.is_over:
            super()._forget(conn)

    def _release(self, conn: Conn) -> None:
        super()._release(conn)
        self.model.kernel.closes += 1

    def _write_leftover(self, sink: Conn, data: bytes) -> None:
        self.model.on_rest(sink, data)
        super()._write_leftover(sink, data)

    def _finish(self, operation: OpResult, error: Exception | None, outcome: int) -> None:
        super()._finish(operation, error, outcome)
        if operation.kind == READ and isinstance(error, DeadlineExceeded):
            self.model.on_read_expired(operation)
        if operation.silent:
            self.model.on_rest_over(operation)
