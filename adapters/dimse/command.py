"""Command sets: always Implicit VR Little Endian, always short (PS3.7 section 6.3, annex E).

They come once or twice per image, so they are read and written here in a few microseconds instead of through the
library's data set classes; the tests hold them against those classes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from adapters.dimse.upper_layer import INVALID_PARAMETER, ProtocolError, pdv_header

C_STORE_RQ, C_STORE_RSP, C_GET_RQ, C_GET_RSP = 0x0001, 0x8001, 0x0010, 0x8010
C_FIND_RQ, C_FIND_RSP, C_MOVE_RQ, C_MOVE_RSP = 0x0020, 0x8020, 0x0021, 0x8021
C_ECHO_RQ, C_ECHO_RSP, C_CANCEL_RQ = 0x0030, 0x8030, 0x0FFF
N_EVENT_REPORT_RQ, N_EVENT_REPORT_RSP, N_GET_RQ, N_GET_RSP = 0x0100, 0x8100, 0x0110, 0x8110
N_SET_RQ, N_SET_RSP, N_ACTION_RQ, N_ACTION_RSP = 0x0120, 0x8120, 0x0130, 0x8130
N_CREATE_RQ, N_CREATE_RSP, N_DELETE_RQ, N_DELETE_RSP = 0x0140, 0x8140, 0x0150, 0x8150
#: (0000,0800) Command Data Set Type: none follows, and the usual of the other values.
NO_DATA_SET, DATA_SET = 0x0101, 0x0000
#: A command set of ours or of any service class is well below this.
MAX_BYTES = 16 << 10

AFFECTED_SOP_CLASS_UID = 0x0002
REQUESTED_SOP_CLASS_UID = 0x0003
COMMAND_FIELD = 0x0100
MESSAGE_ID = 0x0110
MESSAGE_ID_RESPONDED_TO = 0x0120
MOVE_DESTINATION = 0x0600
PRIORITY = 0x0700
COMMAND_DATA_SET_TYPE = 0x0800
STATUS = 0x0900
OFFENDING_ELEMENT = 0x0901
ERROR_COMMENT = 0x0902
ERROR_ID = 0x0903
AFFECTED_SOP_INSTANCE_UID = 0x1000
REQUESTED_SOP_INSTANCE_UID = 0x1001
ATTRIBUTE_IDENTIFIER_LIST = 0x1005
EVENT_TYPE_ID = 0x1002
ACTION_TYPE_ID = 0x1008
REMAINING_SUB_OPERATIONS = 0x1020
COMPLETED_SUB_OPERATIONS = 0x1021
FAILED_SUB_OPERATIONS = 0x1022
WARNING_SUB_OPERATIONS = 0x1023
MOVE_ORIGINATOR_AE_TITLE = 0x1030
MOVE_ORIGINATOR_MESSAGE_ID = 0x1031

#: Text that is padded by a space; the other texts of a command set are UIDs, padded by NUL (PS3.5 section 6.2).
_SPACE_PADDED = frozenset({MOVE_DESTINATION, ERROR_COMMENT, MOVE_ORIGINATOR_AE_TITLE})

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


def text(command: Command, element: int) -> str:
    """Return an AE or LO value without padding, or the empty string."""
    return command.get(element, b"").decode("ascii", "replace").strip("\0 ")


def encode(values: Mapping[int, int | str | bytes]) -> bytes:
    """Return the command set of *values* with its group length; bytes are a value as it is on the wire."""
    parts = []
    for element, value in sorted(values.items()):
        if isinstance(value, int):
            raw = struct.pack("<H", value)
        elif isinstance(value, bytes):
            raw = value
        else:
            raw = value.encode("ascii", "replace")
            if len(raw) % 2:
                raw += b" " if element in _SPACE_PADDED else b"\0"
        parts.append(_ELEMENT.pack(0, element, len(raw)) + raw)
    body = b"".join(parts)
    return _ELEMENT.pack(0, 0, 4) + struct.pack("<I", len(body)) + body


def pdu(context_id: int, values: Mapping[int, int | str | bytes]) -> bytes:
    """Return *values* as one P-DATA-TF PDU."""
    data = encode(values)
    return pdv_header(context_id, _COMMAND | _LAST, len(data)) + data


def is_command(control: int) -> bool:
    """Return whether a message control header marks a command fragment (PS3.8 annex E.2)."""
    return bool(control & _COMMAND)


def is_last(control: int) -> bool:
    """Return whether a message control header marks the last fragment."""
    return bool(control & _LAST)
