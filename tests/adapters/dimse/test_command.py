"""Command sets agree with the library's, in both directions."""

from __future__ import annotations

import struct
from io import BytesIO

import pytest
from pynetdicom.dimse_messages import C_STORE_RQ, C_STORE_RSP
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode as library_decode

from adapters.dimse import command as dimse
from adapters.dimse.upper_layer import ProtocolError


def test_the_library_reads_what_we_write() -> None:
    written = dimse.encode(
        {
            dimse.AFFECTED_SOP_CLASS_UID: "1.2.840.10008.5.1.4.1.1.2",
            dimse.COMMAND_FIELD: dimse.C_STORE_RSP,
            dimse.MESSAGE_ID_RESPONDED_TO: 4711,
            dimse.COMMAND_DATA_SET_TYPE: dimse.NO_DATA_SET,
            dimse.STATUS: 0xA700,
            dimse.ERROR_COMMENT: "odd",
            dimse.AFFECTED_SOP_INSTANCE_UID: "1.2.3",
        }
    )
    read = library_decode(BytesIO(written), True, True)
    assert read.CommandGroupLength == len(written) - 12
    assert (read.AffectedSOPClassUID, read.AffectedSOPInstanceUID) == ("1.2.840.10008.5.1.4.1.1.2", "1.2.3")
    assert (read.CommandField, read.MessageIDBeingRespondedTo, read.Status) == (0x8001, 4711, 0xA700)
    assert (read.CommandDataSetType, read.ErrorComment) == (0x0101, "odd")


@pytest.mark.parametrize("response", [False, True])
def test_we_read_what_the_library_writes(response: bool) -> None:
    primitive = C_STORE()
    primitive.AffectedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    primitive.AffectedSOPInstanceUID = "1.2.34"
    if response:
        primitive.MessageIDBeingRespondedTo, primitive.Status = 9, 0xC001
        message = C_STORE_RSP()
    else:
        primitive.MessageID, primitive.Priority = 9, 2
        primitive.DataSet = BytesIO(b"x")
        message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    first = next(message.encode_msg(1, 0)).presentation_data_value_list[0][1]
    read = dimse.decode(first[1:])
    assert dimse.uid(read, dimse.AFFECTED_SOP_INSTANCE_UID) == "1.2.34"
    assert dimse.number(read, dimse.MESSAGE_ID_RESPONDED_TO if response else dimse.MESSAGE_ID) == 9
    assert dimse.number(read, dimse.COMMAND_FIELD) == (dimse.C_STORE_RSP if response else dimse.C_STORE_RQ)


@pytest.mark.parametrize("cut", range(1, 56, 3))
def test_a_command_that_is_cut_is_refused(cut: int) -> None:
    whole = dimse.encode({dimse.COMMAND_FIELD: 1, dimse.AFFECTED_SOP_CLASS_UID: "1.2.840.10008.5.1.4.1.1.2"})
    borders, offset = {0, len(whole)}, 0
    while offset < len(whole):
        offset += 8 + struct.unpack_from("<I", whole, offset + 4)[0]
        borders.add(offset)
    if cut in borders:
        with pytest.raises(ProtocolError):
            dimse.number(dimse.decode(whole[:cut]), dimse.COMMAND_FIELD)
    else:
        with pytest.raises(ProtocolError):
            dimse.decode(whole[:cut])
