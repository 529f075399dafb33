"""How handlers are named. What is said of wrong names: see refused/handler-*.yaml."""

from pathlib import Path

import pytest

from gaiod.config.errors import Refused
from gaiod.config.references import resolve_reference

FOLDER = Path("/etc/gaiod")


@pytest.mark.parametrize(
    ("reference", "resolved"),
    [
        ("echo", "echo"),
        ("echo-2", "echo-2"),
        ("module:Class", "module:Class"),
        ("package.module:Class", "package.module:Class"),
        ("./shout.py", "/etc/gaiod/shout.py"),
        ("./shout.py:Shout", "/etc/gaiod/shout.py:Shout"),
        ("../handlers/./shout.py", "/etc/handlers/shout.py"),
        ("/opt/a/../shout.py:Shout", "/opt/shout.py:Shout"),
        ("./a:b/sh out.py", "/etc/gaiod/a:b/sh out.py"),
    ],
)
def test_reference_is_as_written_but_a_file_is_absolute(reference: str, resolved: str) -> None:
    assert resolve_reference(reference, FOLDER) == resolved


def test_reference_to_an_absolute_file_needs_no_folder() -> None:
    assert resolve_reference("/opt/shout.py", None) == "/opt/shout.py"
    with pytest.raises(Refused, match="relative to nothing here; write the absolute path"):
        resolve_reference("./shout.py", None)


NO_REFERENCES = """
    2echo écho a.b a.b: :Class a:b:c shout.py shout.py:Shout a/b.py ~/shout.py ~
    ./shout ./.py/ ./.py ./ / ./shout.py: ./shout.py:2
"""


@pytest.mark.parametrize("reference", [*NO_REFERENCES.split(), "", " echo", "echo ", "a b:C", "./a\0.py"])
def test_reference_is_refused_with_what_to_write(reference: str) -> None:
    with pytest.raises(Refused, match=r"; write "):
        resolve_reference(reference, FOLDER)
