"""Configuration: YAML text in, plain frozen settings out, every mistake with its place.

    try:
        settings = load("gaiod.yaml")
    except ConfigErrors as errors:
        print(errors)  # gaiod.yaml:7:5: listeners.echo.idle_timout: unknown key; did you mean idle_timeout?

Only this package imports yaml, and only the child of the supervisor that reads the file imports it.
"""

from gaiod.config.cpus import usable_cpus
from gaiod.config.errors import ConfigError, ConfigErrors
from gaiod.config.loading import load, loads

__all__ = ["ConfigError", "ConfigErrors", "load", "loads", "usable_cpus"]
