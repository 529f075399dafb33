"""What the benchmark's tests share: its programs, and a bench for the shortest of runs."""

import os

import pytest
from harness.runs import Bench
from harness.servers import Programs, compile_programs
from needs import needs_compiler


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """The C programs, compiled."""
    needs_compiler()
    return compile_programs(tmp_path_factory.mktemp("programs"))


@pytest.fixture
def bench(programs: Programs) -> Bench:
    """A bench on whatever cores there are, its runs as short as they can be."""
    cpus = sorted(os.sched_getaffinity(0))
    return Bench(programs, server_cpu=cpus[0], load_cpu=cpus[-1], seconds=0.1, warmup_s=0.0)
