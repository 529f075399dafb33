"""The command gaiod, and python -m gaiod."""

import os
import sys


def main() -> None:
    """Run the command."""
    if sys.argv[1:2] == ["serve"]:
        from gaiod.process.inheritance import begin_daemon

        begin_daemon()  # before what takes long to import: it may be told to stop at any time
    from gaiod.cli import main as run

    run(prog_name="gaiod")


def _forget_working_directory() -> None:
    """Take out what `python -m` puts first on the path: where gaiod is started must not decide what it imports."""
    if not sys.flags.safe_path and sys.path and sys.path[0] in ("", _working_directory()):
        del sys.path[0]


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""  # it was removed


if __name__ == "__main__":
    _forget_working_directory()
    main()
