"""Starting daemons for one test, and stopping them at its end."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

from e2e.support.daemons import ECHO, SERVE, Daemon
from e2e.support.procfs import session_of
from e2e.support.waiting import wait_until


class Start(Protocol):
    """Starts a daemon."""

    def __call__(
        self,
        config: str | None = ECHO,
        *,
        name: str = "gaiod.yaml",
        command: Sequence[str] = SERVE,
        ready: bool = True,
        environment: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
    ) -> Daemon:
        """Write `config` to a file and start a daemon with it, or without one if it is None.

        Args:
            config: the text of the configuration.
            name: of its file.
            command: what Python runs, `--config FILE` behind it.
            ready: wait until it serves.
            environment: variables beside those of the tests.
            files: written into its working directory.
        """


@contextmanager
def starter(folder: Path) -> Iterator[Start]:
    """Give a starter of daemons, each in a folder `daemon-N` of `folder`; stop those that still run."""
    started: list[Daemon] = []

    def start(
        config: str | None = ECHO,
        *,
        name: str = "gaiod.yaml",
        command: Sequence[str] = SERVE,
        ready: bool = True,
        environment: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
    ) -> Daemon:
        home = folder / f"daemon-{len(started)}"
        home.mkdir()
        for file, text in (files or {}).items():
            (home / file).write_text(text)
        arguments = [*command]
        if config is not None:
            (folder / name).write_text(config)
            arguments += ["--config", str(folder / name)]
        daemon = Daemon(home, arguments, environment or {})
        started.append(daemon)
        if ready:
            daemon.wait_until_ready()
        return daemon

    try:
        yield start
        for daemon in started:
            if not daemon.ended:
                daemon.stop()
            wait_until(partial(_is_gone, daemon), "the end of every process it started")
    finally:
        for daemon in started:
            daemon.clean_up()


def _is_gone(daemon: Daemon) -> bool:
    return not session_of(daemon.pid)
