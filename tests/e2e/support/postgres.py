"""A real PostgreSQL for tests: a cluster of its own in a folder, and its programs as clients."""

import glob
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from core.support.waiting import LIMIT_S

from e2e.support.programs import free_port
from e2e.support.tools import tool
from e2e.support.waiting import wait_until

FOLDERS = "/usr/lib/postgresql/*/bin"
"""Where Debian has the programs that are not for everybody."""

OPTIONS = ("fsync=off", "listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=100")


class PostgresServer:
    """A server that runs.

    Attributes:
        port: of 127.0.0.1.
    """

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._log = folder / "postgres.log"
        # It does not run as root, and what it runs as may not see the folder of the test.
        self._user = "postgres" if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Make the cluster, start the server, and wait until it answers."""
        self._run(program("initdb"), "-A", "trust", "-U", "postgres", "-N", "-D", f"{self._folder}/data")
        options = [each for option in OPTIONS for each in ("-c", option)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [program("postgres"), "-D", f"{self._folder}/data", "-p", str(self.port), *options],
                cwd=self._folder,
                user=self._user,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: self.psql("SELECT 1", check=False).returncode == 0, "PostgreSQL answering")

    def stop(self) -> None:
        """End it at once: nothing of it is kept."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(LIMIT_S)

    def psql(self, sql: str, *, port: int | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Have psql run statements, at another port perhaps."""
        return self._client("psql", port or self.port, "-qtAX", "-v", "ON_ERROR_STOP=1", "-c", sql, check=check)

    def pgbench(self, *arguments: str) -> None:
        """Have pgbench do something."""
        self._client("pgbench", self.port, *arguments, check=True)

    def _client(self, name: str, port: int, *arguments: str, check: bool) -> subprocess.CompletedProcess[str]:
        command = client(name, port, *arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=6 * LIMIT_S, check=False)
        assert done.returncode == 0 or not check, (done.stderr, self._log.read_text())
        return done

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, cwd=self._folder, user=self._user, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done


def program(name: str) -> str:
    """Return the path of a program of PostgreSQL's, the newest that is installed."""
    found = sorted(glob.glob(f"{FOLDERS}/{name}"))
    return found[-1] if found else tool(name, "postgresql")


def client(name: str, port: int, *arguments: str) -> Sequence[str]:
    """Return the command of a client."""
    return [program(name), "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", *arguments, "postgres"]


@contextmanager
def postgres() -> Iterator[PostgresServer]:
    """Give a server; its folder goes with it."""
    program("postgres")
    if os.geteuid() == 0:
        try:
            owner = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("there is no user postgres")
    folder = Path(tempfile.mkdtemp(prefix="gaiod-postgres-"))
    if os.geteuid() == 0:
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    server = PostgresServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)
