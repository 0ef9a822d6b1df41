"""What a member's endpoint sends, as the journal tells it from all else: by door, institution and the sender's names."""

from __future__ import annotations

from hub.ports import MemberEndpoint
from hub.ports.feeds import Feed

#: Doors by which HL7 v2 comes, and by which images come.
V2_DOORS = ("mllp", "hl7-http", "hl7-folder", "hl7-view")
IMAGE_DOORS = ("dimse",)


def feed_of(endpoint: MemberEndpoint) -> Feed | None:
    """Return the feed of *endpoint*, or ``None`` when it is one that is only sent to, or that has no journal of its own."""
    if endpoint.kind == "mllp" and (endpoint.sending_facility or endpoint.sending_application):
        return Feed(
            institution=endpoint.member,
            doors=V2_DOORS,
            sending_application=endpoint.sending_application,
            sending_facility=endpoint.sending_facility,
        )
    if endpoint.kind == "dicom" and endpoint.ae_title:
        return Feed(institution=endpoint.member, doors=IMAGE_DOORS, sending_application=endpoint.ae_title)
    return None
