"""The command line: thin."""

import logging
import os
import platform
import sys
from contextlib import AbstractContextManager, nullcontext
from importlib.resources import as_file, files
from pathlib import Path
from typing import NoReturn

import click

from gaiod.console.commands import COMMANDS
from gaiod.process.inheritance import begin_daemon, take_known_state
from gaiod.version import __version__

click.UsageError.exit_code = os.EX_USAGE  # sysexits(3), as everything else here

log = logging.getLogger("gaiod")

CONFIG_FILE = click.Path(dir_okay=False, path_type=Path)


def _version_text() -> str:
    from gaiod.core import ENGINE
    from gaiod.core.engine import tls_library
    from gaiod.tls_options import made_by

    tls = made_by(tls_library())
    return f"gaiod {__version__}, {ENGINE} engine, Python {platform.python_version()}, TLS by {tls}"


def _show_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(_version_text())
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Same as `version`."
)
def main() -> None:
    """Run and control gaiod, a networking daemon.

    gaiod moves the bytes; handlers decide what to do with them. Start with `gaiod serve`.
    """


@main.command()
@click.option("-c", "--config", type=CONFIG_FILE, help="The configuration file. Default: an echo on 127.0.0.1:7000.")
@click.option("--allow-root", is_flag=True, help="Run as root although the configuration names no user.")
def serve(config: Path | None, allow_root: bool) -> None:
    """Run the daemon in the foreground, until SIGTERM or SIGINT.

    SIGHUP reloads the configuration, SIGUSR1 reopens the log file if it was moved away, SIGUSR2 upgrades the daemon to
    the version that is installed now.

    Exit status: 0 stopped in order, 64 wrong usage, 70 workers died repeatedly, a worker did not stop in time, or
    on_start of a handler raised, 71 an address cannot be bound, 77 it would run with rights that it should not have,
    78 the configuration is wrong.
    """
    begin_daemon()
    if os.getpid() == 1:
        from gaiod.supervisor.host.init import become_child_of_init

        become_child_of_init()
    from gaiod.log.setup import configure_log
    from gaiod.settings import LogSettings
    from gaiod.supervisor.host.privileges import PrivilegeError, check_start
    from gaiod.supervisor.preflight import PreflightFailed, read_configuration
    from gaiod.supervisor.supervisor import Supervisor
    from gaiod.supervisor.upgrade import own_command, tell_failure

    def refuse(why: Exception, status: int) -> NoReturn:
        click.echo(why, err=True)
        tell_failure(os.environ, str(why))
        sys.exit(status)

    with _packaged_default() if config is None else nullcontext(_absolute(config)) as path:
        try:
            checked = read_configuration(path, check_rights=config is not None)
            check_start(checked.settings, config, allow_root=allow_root)
            configure_log(LogSettings(format=checked.settings.log.format), role="supervisor")
        except PreflightFailed as failure:
            refuse(failure, failure.status)
        except PrivilegeError as error:
            refuse(error, os.EX_NOPERM)
        if config is None:
            log.info("no --config was given: serving the packaged default, %s", path)
            if os.geteuid() == 0 and not allow_root:
                log.warning("running as root, which only the packaged default may; your own configuration needs user:")
        chosen = [] if config is None else ["--config", str(path)]
        if allow_root:
            chosen.append("--allow-root")
        sys.exit(Supervisor(checked, path, own_command("serve", *chosen)).run())


def _absolute(path: Path) -> Path:
    """Return a path that means the same file whatever becomes of the working directory. Links stay as they are."""
    try:
        return path.absolute()
    except FileNotFoundError:
        click.echo(f"{path}: the working directory was removed; give the absolute path of the configuration", err=True)
        sys.exit(os.EX_CONFIG)


def _packaged_default() -> AbstractContextManager[Path]:
    return as_file(files("gaiod.default_config") / "gaiod.yaml")


@main.command()
@click.argument("file", type=CONFIG_FILE)
def check(file: Path) -> None:
    """Check a configuration file and its handlers, and report every mistake.

    A separate process imports and instantiates each handler, as `serve` and `reload` do. What can be served and looks
    dangerous is a warning.

    Exit status: 0 it can be served, 78 it cannot, 70 the code of a handler hangs or ends its process.
    """
    take_known_state()
    from gaiod.supervisor.host.privileges import unreadable_later
    from gaiod.supervisor.preflight import PreflightFailed, open_to_all, read_configuration, tickets_of_one

    try:
        settings = read_configuration(file, check_rights=False).settings
    except PreflightFailed as failure:
        click.echo(failure, err=True)
        sys.exit(failure.status)
    for warning in (*open_to_all(settings), *tickets_of_one(settings), *unreadable_later(settings)):
        click.echo(f"{file}: warning: {warning}", err=True)
    names = ", ".join(listener.name for listener in settings.listeners)
    click.echo(f"{file}: fine; listeners: {names}")


@main.command()
def handlers() -> None:
    """List the handlers that installed packages offer."""
    from gaiod.plugins import HandlerLoadError, installed, load_handler

    for name, target in sorted(installed().items()):
        try:
            what = (load_handler(name).__doc__ or "").strip().partition("\n")[0]
        except HandlerLoadError as error:
            what = f"cannot be loaded: {error}"
        click.echo(f"{name:12} {target:32} {what}")


@main.command()
def version() -> None:
    """Print the version, the engine, Python's version, and what makes TLS."""
    click.echo(_version_text())


for command in COMMANDS:
    main.add_command(command)
