"""Every file of refused/ is refused with exactly the messages in its first lines.

# expect: LINE:COLUMN: KEY: WHAT IS WRONG; WHAT TO DO
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from gaiod.config import ConfigErrors, loads
from gaiod.handler.handler import Handler

EXPECT = "# expect: "
FILES = sorted((Path(__file__).parent / "refused").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_file_is_refused_with_the_messages_in_its_first_lines(
    file: Path, load_handler: Callable[[str], type[Handler]]
) -> None:
    text = file.read_text()
    expected = [line.removeprefix(EXPECT) for line in text.splitlines() if line.startswith(EXPECT)]
    with pytest.raises(ConfigErrors) as errors:
        loads(text, path="f", load_handler=load_handler)
    assert [str(error).removeprefix("f:") for error in errors.value.errors] == expected
    assert all("; " in message for message in expected), "every message says what to do"


def test_there_are_files_to_refuse() -> None:
    assert len(FILES) >= 200
