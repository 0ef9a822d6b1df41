"""Command sets: always Implicit VR Little Endian, always short (PS3.7 section 6.3, annex E).

They come once or twice per image, so they are read and written here in a few microseconds instead of through the
library's data set classes; the tests hold them against those classes.
"""

from __future__ import annotations

import struct

from adapters.dimse.upper_layer import INVALID_PARAMETER, ProtocolError, pdv_header

C_STORE_RQ, C_STORE_RSP, C_ECHO_RQ, C_ECHO_RSP, C_CANCEL_RQ = 0x0001, 0x8001, 0x0030, 0x8030, 0x0FFF
NO_DATA_SET = 0x0101
#: A command set of ours or of any service class is well below this.
MAX_BYTES = 16 << 10

AFFECTED_SOP_CLASS_UID = 0x0002
REQUESTED_SOP_CLASS_UID = 0x0003
COMMAND_FIELD = 0x0100
MESSAGE_ID = 0x0110
MESSAGE_ID_RESPONDED_TO = 0x0120
PRIORITY = 0x0700
COMMAND_DATA_SET_TYPE = 0x0800
STATUS = 0x0900
ERROR_COMMENT = 0x0902
AFFECTED_SOP_INSTANCE_UID = 0x1000

_ELEMENT = struct.Struct("<HHI")
_COMMAND, _LAST = 1, 2

Command = dict[int, bytes]


def decode(data: bytes | bytearray) -> Command:
    """Return the elements of group 0000 by element number; raises ProtocolError when they do not fill *data*."""
    command: Command = {}
    offset, end = 0, len(data)
    while offset < end:
        if end - offset < 8:
            raise ProtocolError("broken-command", INVALID_PARAMETER)
        group, element, length = _ELEMENT.unpack_from(data, offset)
        offset += 8
        if group != 0 or length > end - offset:
            raise ProtocolError("broken-command", INVALID_PARAMETER)
        command[element] = bytes(data[offset : offset + length])
        offset += length
    return command


def number(command: Command, element: int) -> int:
    """Return a US value; raises ProtocolError where it is missing."""
    raw = command.get(element, b"")
    if len(raw) != 2:
        raise ProtocolError("broken-command", INVALID_PARAMETER)
    return int.from_bytes(raw, "little")


def uid(command: Command, element: int) -> str:
    """Return a UI value without padding, or the empty string."""
    return command.get(element, b"").decode("ascii", "replace").rstrip("\0 ")


def encode(values: dict[int, int | str]) -> bytes:
    """Return the command set of *values* with its group length."""
    parts = []
    for element, value in sorted(values.items()):
        if isinstance(value, int):
            raw = struct.pack("<H", value)
        else:
            raw = value.encode("ascii", "replace")
            if len(raw) % 2:
                raw += b" " if element == ERROR_COMMENT else b"\0"
        parts.append(_ELEMENT.pack(0, element, len(raw)) + raw)
    body = b"".join(parts)
    return _ELEMENT.pack(0, 0, 4) + struct.pack("<I", len(body)) + body


def pdu(context_id: int, values: dict[int, int | str]) -> bytes:
    """Return *values* as one P-DATA-TF PDU."""
    data = encode(values)
    return pdv_header(context_id, _COMMAND | _LAST, len(data)) + data


def is_command(control: int) -> bool:
    """Return whether a message control header marks a command fragment (PS3.8 annex E.2)."""
    return bool(control & _COMMAND)


def is_last(control: int) -> bool:
    """Return whether a message control header marks the last fragment."""
    return bool(control & _LAST)
