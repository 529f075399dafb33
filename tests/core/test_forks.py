"""Forks: what a child does with its copy of a watcher is not felt by its parent, nor the other way round."""

import pytest

from core.support.processes import run_python

SETUP = """
import gc, os, select, socket, sys
from gaiod import Watcher

watcher = Watcher()
(near, far), (other, far_other) = socket.socketpair(), socket.socketpair()
conn = watcher.delegate(near)
second = watcher.delegate(other)
conn.read()
watcher.wait_io(0)

def served(peer):
    peer.send(b"hello")
    return [bytes(result.buffer) for result in watcher.wait_io(10)]
"""

CHILDREN = {
    "closes it": "watcher.close()",
    "drops a connection": "conn.abort()",
    "forgets everything": "del conn, second, watcher; gc.collect()",
    "uses it": "second.read(); assert served(far_other) == [b'hello']",
    "adds to it": "watcher.delegate(socket.socketpair()[0]); watcher.wait_io(0)",
}


@pytest.mark.parametrize("what", CHILDREN)
def test_parent_goes_on_when_a_child(what: str) -> None:
    told = run_python(
        "-c",
        f"""{SETUP}
child = os.fork()
if child == 0:
    {CHILDREN[what]}
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0, "the child failed"
assert served(far) == [b"hello"]
print("served")
""",
    )
    assert told.stdout == "served\n", told.stderr


def test_child_goes_on_when_its_parent_exits() -> None:
    """As every daemon that is started in the old way: the parent ends in order, and takes its copy down."""
    told = run_python(
        "-c",
        f"""{SETUP}
gone_in, gone_out = os.pipe()
if os.fork() == 0:
    os.close(gone_out)
    os.read(gone_in, 1)  # ends when the parent has
    assert served(far) == [b"hello"]
    print("served", flush=True)
    os._exit(0)
sys.exit(0)
""",
    )
    assert told.stdout == "served\n", told.stderr


def test_child_that_was_forked_from_a_child_has_its_own_poller() -> None:
    told = run_python(
        "-c",
        f"""{SETUP}
child = os.fork()
if child == 0:
    watcher.wait_io(0)
    grandchild = os.fork()
    if grandchild == 0:
        watcher.close()
        os._exit(0)
    assert os.waitpid(grandchild, 0)[1] == 0
    assert served(far) == [b"hello"]
    print("served", flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
""",
    )
    assert told.stdout == "served\n", told.stderr
