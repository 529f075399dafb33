"""A user's own handler, in a file beside the configuration."""

import re
from pathlib import Path

import pytest
from core.support.sockets import receive
from core.support.waiting import LIMIT_S

from e2e.support.clients import connect, exchange, is_ended
from e2e.support.handlers import IMPORTS, RAISES_WHEN_TOLD, SHOUT, beside
from e2e.support.starting import Start
from e2e.support.waiting import wait_until

EMPTY_HANDLER = "class Mine(gaiod.Handler):\n    pass\n"


def _line_of(source: str, text: str) -> int:
    return source[: source.index(text)].count("\n") + 1


def test_own_handler_gets_its_options_as_numbers_when_they_have_units(daemon: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SHOUT)
    running = daemon(beside("    with: {prefix: hello, pause: 250ms}\n"))
    with connect(running.address("mine")) as sock:
        assert receive(sock, 11) == b"hello 0.25\n"
        assert exchange(sock, b"quiet") == b"QUIET"


def test_own_handler_gets_its_defaults_when_no_option_is_given(daemon: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SHOUT)
    with connect(daemon(beside()).address("mine")) as sock:
        assert receive(sock, 5) == b" 1.0\n"


def test_daemon_ends_with_78_and_a_place_when_an_option_is_wrong(daemon: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SHOUT)
    running = daemon(beside("    with: {pause: 3}\n"), ready=False)
    assert running.wait() == 78
    assert re.search(r"gaiod\.yaml:6:19: listeners\.mine\.with\.pause: 3 has no unit; write 3s", running.log())


@pytest.mark.parametrize(
    ("source", "place", "message"),
    [
        ("raise RuntimeError('out of order')\n", "raise", "RuntimeError: out of order"),
        ("import no_such_module_anywhere\n", "import no_such", "No module named 'no_such_module_anywhere'"),
        ("import json\njson.loads('{')\n", "json.loads", "JSONDecodeError"),
        ("def broken(:\n    pass\n", "def broken", "not valid Python"),
        (
            "class Mine(gaiod.Handler):\n    def on_raed(self, conn, result): ...\n",
            "class Mine",
            "did you mean on_read?",
        ),
    ],
    ids=["raises", "import missing", "raises elsewhere", "syntax", "unknown hook"],
)
def test_daemon_ends_with_78_and_the_line_when_a_handler_cannot_be_imported(
    daemon: Start, tmp_path: Path, source: str, place: str, message: str
) -> None:
    """The line is in the user's own file, for that is where the user can do something."""
    source = IMPORTS + source + EMPTY_HANDLER
    (tmp_path / "mine.py").write_text(source)
    running = daemon(beside(), ready=False)
    assert running.wait() == 78
    assert "Traceback" not in running.log()
    assert message in running.log()
    assert f"{tmp_path / 'mine.py'}:{_line_of(source, place)}:" in running.log()


def test_daemon_ends_with_78_when_a_handler_exits_at_import(daemon: Start, tmp_path: Path) -> None:
    """A script is not a handler, whatever status it exits with."""
    (tmp_path / "mine.py").write_text("import sys\nsys.exit(0)\n")
    running = daemon(beside(), ready=False)
    assert running.wait() == 78
    assert "SystemExit" in running.log()


def test_daemon_ends_with_78_when_a_handler_fails_in_the_worker_only(daemon: Start, tmp_path: Path) -> None:
    source = IMPORTS + "if os.path.exists('seen'):\n    raise RuntimeError('second time')\nopen('seen', 'w').close()\n"
    (tmp_path / "mine.py").write_text(source + EMPTY_HANDLER)
    running = daemon(beside(), ready=False)
    assert running.wait() == 78
    assert "RuntimeError: second time" in running.log()
    assert "Traceback" not in running.log()


def test_connection_alone_is_closed_when_its_hook_raises(daemon: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(RAISES_WHEN_TOLD)
    running = daemon(beside())
    with connect(running.address("mine")) as good:
        assert exchange(good, b"good") == b"good"
        for _ in range(20):
            with connect(running.address("mine")) as bad:
                bad.sendall(b"raise")
                assert is_ended(bad)
        assert exchange(good, b"still") == b"still"
    samples = running.scrape()
    assert samples.value("gaiod_handler_errors_total", handler="mine", hook="on_read") == 20
    assert samples.value("gaiod_connections_closed_total", listener="mine", reason="handler_error") == 20
    log = running.log()
    assert f'{tmp_path / "mine.py"}", line {_line_of(RAISES_WHEN_TOLD, "raise Runtime")}, in on_read' in log
    assert 1 <= log.count("RuntimeError: told to") <= 1 + LIMIT_S


def test_daemon_serves_on_when_every_connection_raises(daemon: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        IMPORTS + "class Mine(gaiod.Handler):\n    def on_open(self, conn):\n        raise ValueError('never')\n"
    )
    running = daemon(beside())
    for _ in range(50):
        with connect(running.address("mine")) as sock:
            assert is_ended(sock)
    samples = running.scrape()
    assert samples.total("gaiod_handler_errors_total", hook="on_open") == 50
    wait_until(lambda: running.scrape().total("gaiod_connections_active") == 0, "the last close being counted")
    assert samples.value("gaiod_ready") == 1


def test_handlers_of_two_files_with_one_name_are_told_apart(daemon: Start, tmp_path: Path) -> None:
    """Their modules must not take each other's place: dataclasses look their annotations up there."""
    for folder, kind in (("one", "Duration"), ("two", "Size")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(
            "from __future__ import annotations\nimport gaiod\nfrom dataclasses import dataclass\n"
            f"Kind{folder} = gaiod.{kind}\n"
            f"@dataclass\nclass Options:\n    amount: Kind{folder}\n"
            "class Mine(gaiod.Handler):\n    Options = Options\n    def on_open(self, conn):\n"
            "        conn.write(repr(self.options.amount).encode())\n"
        )
    running = daemon(
        'metrics: {listen: "127.0.0.1:0"}\n'
        "listeners:\n"
        '  one: {bind: "127.0.0.1:0", handler: ./one/mine.py, with: {amount: 1s}}\n'
        '  two: {bind: "127.0.0.1:0", handler: ./two/mine.py, with: {amount: 1KiB}}\n'
    )
    with connect(running.address("one")) as sock:
        assert sock.recv(64) == b"1.0"
    with connect(running.address("two")) as sock:
        assert sock.recv(64) == b"1024"
