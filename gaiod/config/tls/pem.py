"""PEM files that a configuration names, and the blocks in their text."""

import binascii
import os
import stat
from pathlib import Path

from gaiod.config.errors import Refused
from gaiod.config.words import mismatch
from gaiod.handler.option_types import PemFile
from gaiod.wording import shown

__all__ = ["PemFile", "blocks_of", "read_pem"]

FILE_MAX_BYTES = 1 << 20
"""A chain has some KiB, and the authorities of a browser 250 KiB."""


def read_pem(value: object, wanted: str, max_bytes: int = FILE_MAX_BYTES) -> PemFile:
    """Return the text of the file at an absolute path; `wanted` is what to write instead.

    Raises:
        Refused: it is no such path, or the file cannot be read, is too long, or is no text.
    """
    data = read_bytes(value, wanted, max_bytes)
    try:
        return PemFile(str(value), data.decode("ascii"))
    except UnicodeDecodeError as error:
        raise Refused(f"{shown(str(value))} is not PEM, but perhaps DER; write {wanted}") from error


def read_bytes(value: object, wanted: str, max_bytes: int = FILE_MAX_BYTES) -> bytes:
    """Return what is in the file at an absolute path; `wanted` is what to write instead.

    Raises:
        Refused: it is no such path, or the file cannot be read, or is too long.
    """
    if not isinstance(value, str):
        raise Refused(mismatch(value, wanted))
    if not value.startswith("/"):
        raise Refused(f"{shown(value)} is not an absolute path; write {wanted}")
    try:
        path = Path(value)
        if not stat.S_ISREG(path.stat().st_mode):
            raise Refused(f"{shown(value)} is not a file; write {wanted}")
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        remedy = f"let user {os.geteuid()} read it" if isinstance(error, PermissionError) else f"write {wanted}"
        raise Refused(f"{shown(value)}: {error.strerror}; {remedy}") from error
    if len(data) > max_bytes:
        raise Refused(f"{shown(value)} is larger than {max_bytes >> 20}MiB; write {wanted}")
    return data


def blocks_of(text: str, label: str) -> list[bytes]:
    """Return what is in the blocks of a kind, such as CERTIFICATE, in their order: DER.

    Raises:
        ValueError: one is not in base64, or has no end.
    """
    begin, end = f"-----BEGIN {label}-----", f"-----END {label}-----"
    blocks = []
    for part in text.split(begin)[1:]:
        block, found, _ = part.partition(end)
        if not found:
            raise ValueError("a block has no end")
        blocks.append(binascii.a2b_base64("".join(block.split()), strict_mode=True))
    return blocks
