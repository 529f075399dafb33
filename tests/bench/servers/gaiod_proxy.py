"""The gaiod proxy under test: any handler as a worker runs it, its options as the configuration gives them."""

import argparse
import json

from gaiod_worker import make_listener, serve, tls_settings

from gaiod.plugins import build_options, load_handler


def main() -> None:
    """Parse the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("handler", help="an entry point, `package.module:Class` or `/absolute/file.py:Class`")
    parser.add_argument("options", type=json.loads, help="its options as a JSON object, durations in seconds")
    parser.add_argument("--tls", nargs=2, metavar=("CHAIN", "KEY"), help="speak TLS, with a certificate from two files")
    arguments = parser.parse_args()
    handler = load_handler(arguments.handler)
    tls = tls_settings(*arguments.tls) if arguments.tls else None
    watcher, listener = make_listener(handler(build_options(handler, arguments.options)), tls)
    serve(watcher, listener, arguments.port)


if __name__ == "__main__":
    main()
