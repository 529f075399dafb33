"""PEM files: what is wrong with one is said with its path."""

from pathlib import Path

import pytest

from gaiod.config.errors import Refused
from gaiod.config.tls.pem import PemFile, blocks_of, read_pem

BLOCK = "-----BEGIN THING-----\nQUJD\nRA==\n-----END THING-----\n"


def test_file_is_its_path_and_its_text(tmp_path: Path) -> None:
    path = tmp_path / "a.pem"
    path.write_text(BLOCK)
    assert read_pem(str(path), "a file") == PemFile(str(path), BLOCK)
    assert "QUJD" not in repr(read_pem(str(path), "a file"))
    with pytest.raises(Refused, match="is larger than 0MiB; write a file"):
        read_pem(str(path), "a file", 10)


def test_blocks_of_a_kind_are_found_between_others() -> None:
    other = BLOCK.replace("THING", "OTHER")
    assert blocks_of(f"text\n{other}{BLOCK}{other}more\n{BLOCK}", "THING") == [b"ABCD", b"ABCD"]
    assert blocks_of(other, "THING") == []


@pytest.mark.parametrize("text", [BLOCK.replace("END", "STOP"), BLOCK.replace("QUJD", "Q?JD")])
def test_block_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        blocks_of(text, "THING")
