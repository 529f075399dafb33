"""stub."""

import logging


class LogError(Exception): ...


def configure(settings, *, role):
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s %(levelname)s {role} %(name)s: %(message)s")
