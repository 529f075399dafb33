"""Where to listen, as the configuration says it. `gaiod.addresses` has the shapes, and takes them apart.

Addresses are numeric. A name would be looked up at start, may have several answers, and would make the
start depend on a resolver: the one who writes the file knows which address is meant.
"""

from gaiod.addresses import LISTEN_EXAMPLES, UNIX, Address, parse_address
from gaiod.config.errors import Refused
from gaiod.config.words import mismatch
from gaiod.wording import shown

AUTO = "auto"
CONTROL_WANTED = "auto, false, or one such as unix:/run/gaiod/control.sock"


def parse_place(value: object) -> Address:
    """Return the address to listen on that `value` names. Port 0 is any free port.

    Raises:
        Refused: it is none.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # a port without its host, usually
    if not isinstance(value, str):
        raise Refused(mismatch(value, f"an address {LISTEN_EXAMPLES}"))
    try:
        return parse_address(value, listen=True)
    except ValueError as error:
        raise Refused(str(error)) from None


def parse_bind(value: object) -> str:
    """Return the one way to write the address that `value` names.

    Raises:
        Refused: it is not an address to listen on.
    """
    return str(parse_place(value))


def parse_control(value: object) -> str:
    """Return where commands are taken: `auto`, or a unix socket.

    Raises:
        Refused: it is neither. Whoever can connect may command, so a TCP port will not do.
    """
    if value == AUTO:
        return AUTO
    if not isinstance(value, str):
        raise Refused(mismatch(value, CONTROL_WANTED))
    if not value.startswith(UNIX):
        raise Refused(f"{shown(value)} is not a unix socket; write {CONTROL_WANTED}")
    return parse_bind(value)
