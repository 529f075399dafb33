"""A real Redis for tests: on a unix socket, and on a port if one is wanted; killed and started again at will."""

import signal
import subprocess
from pathlib import Path
from typing import Any

import redis
from core.support.waiting import LIMIT_S
from redis.backoff import NoBackoff
from redis.retry import Retry

from e2e.support.waiting import wait_until


class RedisServer:
    """A redis-server with a folder of its own.

    Args:
        folder: where it keeps what it keeps.
        more: further arguments, such as `--requirepass`.
        password: what clients of the test must say.
    """

    def __init__(self, folder: Path, *more: str, password: str | None = None) -> None:
        self.folder = folder
        self.path = folder / "redis.sock"
        self.url = f"unix://{self.path}"
        self._more = more
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, again perhaps, and wait until it answers."""
        output = self.folder / "redis.log"
        arguments = ["--port", "0", "--unixsocket", str(self.path), "--dir", str(self.folder), "--save", ""]
        with output.open("ab") as file:
            process = subprocess.Popen(
                ["redis-server", *arguments, *self._more], stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
        self._process = process

        def answers() -> bool:
            assert process.poll() is None, output.read_text()
            try:
                return bool(self.do("PING"))
            except (redis.ConnectionError, redis.BusyLoadingError):
                return False

        wait_until(answers, "redis-server answering")

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(LIMIT_S)
            self._process = None

    def pause(self) -> None:
        """Have it hang."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Have it hang no more."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def client(self) -> redis.Redis:
        """Return a client that tries once: by default one waits seconds for a server that is down."""
        once = Retry(NoBackoff(), 0)
        return redis.Redis(unix_socket_path=str(self.path), password=self._password, retry=once)

    def do(self, *command: Any) -> Any:
        """Carry a command out."""
        with self.client() as client:
            return client.execute_command(*command)

    def publish(self, channel: str, data: str) -> None:
        """Publish, to somebody."""
        assert self.do("PUBLISH", channel, data) > 0

    def add(self, stream: str, *messages: str, field: str = "message") -> None:
        """Add entries to a stream, all at once."""
        with self.client() as client:
            pipeline = client.pipeline()
            for message in messages:
                pipeline.xadd(stream, {field: message})
            pipeline.execute()
