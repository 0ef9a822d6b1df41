"""Which of the accepted transfer syntaxes instances and frames go out in (PS3.18 section 8.7.3)."""

from __future__ import annotations

from collections.abc import Sequence

from adapters.dicomweb.negotiation import Accepted, not_acceptable
from adapters.pixels.stored import compressible, transcodable
from adapters.pixels.syntaxes import EXPLICIT_LITTLE, SYNTAXES, TARGETS, decodes, video
from fhir_mappings.dicom.scanner import DEFLATED
from hub.ports import InstanceRow

_OCTETS = "application/octet-stream"


def by_syntax(wanted: Sequence[Accepted], rows: Sequence[InstanceRow]) -> tuple[Accepted, Sequence[InstanceRow]]:
    """Return the first range that fits any instance as it is stored or can be sent, and the instances it fits."""
    for one in wanted:
        fitting = [row for row in rows if one.transfer_syntax == "" or may_be(row, one.transfer_syntax)]
        if fitting:
            return one, fitting
    possible = dict.fromkeys(row.TransferSyntaxUID for row in rows)
    possible |= dict.fromkeys(one.uid for one in TARGETS if any(may_be(row, one.uid) for row in rows))
    raise not_acceptable(f"Ask with transfer-syntax=* for what is stored, or with one of {', '.join(possible)}.")


def may_be(row: InstanceRow, syntax: str) -> bool:
    """Return whether the instance is in transfer syntax *syntax*, or can be turned into it."""
    if row.TransferSyntaxUID == syntax:
        return True
    # Offsets into deflated objects mean nothing, so the size of the image tells that there is one.
    has_pixels = row.pixel_offset is not None or (row.TransferSyntaxUID in DEFLATED and row.Rows is not None)
    return transcodable(row.TransferSyntaxUID, has_pixels=has_pixels, target=syntax) or compressible(
        row.TransferSyntaxUID, row.BitsAllocated or 0, has_pixels=has_pixels, target=syntax
    )


def frame_type(ranges: Sequence[Accepted], stored: str, bits: int) -> tuple[Accepted, str, str]:
    """Return the range that takes frames stored as *stored*, the media type to name them by, and their transfer syntax."""
    own = SYNTAXES.get(stored)
    own_type = own.media_type if own is not None else _OCTETS
    targets = TARGETS if decodes(stored) or video(stored) else ()
    for one in ranges:
        if one.transfer_syntax in {"", stored}:
            # Octets without a word on the transfer syntax are uncompressed ones (PS3.18 table 8.7.3-4); viewers that take
            # any write ``transfer-syntax=*`` and read the syntax from the part's Content-Type.
            plain = one.media_type == _OCTETS and not one.any_syntax and not one.transfer_syntax
            for media_type in (own_type, _OCTETS):
                if one.takes(media_type) and not (plain and stored != EXPLICIT_LITTLE):
                    return one, media_type, stored
        for target in targets:
            named = one.transfer_syntax == target.uid and one.takes(target.media_type)
            meant = one.transfer_syntax == "" and one.media_type == target.media_type
            if named or meant:
                return one, target.media_type, target.uid
        # With loss only for who says so by the UID; a media type alone never means it.
        known = SYNTAXES.get(one.transfer_syntax)
        if (
            known is not None
            and one.takes(known.media_type)
            and compressible(stored, bits, has_pixels=True, target=known.uid)
        ):
            return one, known.media_type, known.uid
    possible = dict.fromkeys(
        f"{media_type}; transfer-syntax={syntax}"
        for media_type, syntax in ((own_type, stored), *((one.media_type, one.uid) for one in targets))
    )
    raise not_acceptable(f"Possible here are {', '.join(possible)}.")
