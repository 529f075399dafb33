"""Handing connections from one watcher to another, as two processes do."""

import json
import os
from typing import Any

from gaiod.core.connection import Conn
from gaiod.core.handover import Unit
from gaiod.core.watcher import Watcher


def offer(unit: Unit) -> tuple[list[dict[str, Any]], list[int], list[bytes]]:
    """Return what arrives of a unit at another process: values by way of JSON, descriptors of its own, bytes."""
    told, blobs = unit.describe()
    descriptors = [os.dup(conn.fileno()) for conn in unit.conns]
    return json.loads(json.dumps(told)), descriptors, blobs


def move(giver: Watcher, taker: Watcher, *conns: Conn) -> list[Conn]:
    """Hand connections over, and return what they are in the other watcher, in the order of the unit."""
    unit = giver.detach(*conns)
    arrived = taker.attach(*offer(unit))
    unit.release()
    arrived.resume()
    return arrived.conns
