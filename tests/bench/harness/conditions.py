"""What the figures depend on: the versions of everything that is compared, and of what is below it."""

import platform
from importlib.metadata import PackageNotFoundError, version

from harness.network import congestion_control
from harness.packages import haproxy_version, nginx_version

NOT_INSTALLED = "none"
DISTRIBUTIONS = ("gaiod", "uvloop", "aiofastnet")


def distribution_version(name: str) -> str:
    """Return the version of an installed Python distribution, or `none`."""
    try:
        return version(name)
    except PackageNotFoundError:
        return NOT_INSTALLED


def conditions() -> str:
    """Return the versions that are installed, and how TCP is set: by default, and on the benchmark's own sockets."""
    versions = {
        "Python": platform.python_version(),
        **{name: distribution_version(name) for name in DISTRIBUTIONS},
        "haproxy": haproxy_version() or NOT_INSTALLED,
        "nginx": nginx_version() or NOT_INSTALLED,
        platform.system(): platform.release(),
    }
    sockets = f"congestion control {congestion_control()} by default, reno and NODELAY on the servers and the load"
    return f"{', '.join(map(' '.join, versions.items()))}; {sockets}"
