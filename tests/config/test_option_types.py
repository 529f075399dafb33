"""The markers that handlers put on their options."""

import subprocess
import sys
from typing import get_args

from gaiod.handler.option_types import Duration, Size, Unit


def test_markers_are_plain_numbers_with_a_unit() -> None:
    assert get_args(Duration) == (float, Unit("duration"))
    assert get_args(Size) == (int, Unit("size"))


def test_markers_bring_nothing_heavy_into_a_worker() -> None:
    script = "import sys, gaiod.handler.option_types; print({'yaml'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
