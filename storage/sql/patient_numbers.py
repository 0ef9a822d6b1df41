"""Whom a PatientID (0010,0020) means beside the images that carry it: the numbers merged into that one.

Images keep the number under which they were sent. When a hospital merges a number into another (ADT^A40), whoever asks
for the survivor's means the person, and finds the images of both; who asks for the dead number finds what came under
that number. A number means a record where the record's id was made of it (see :func:`hub.imaging.patient_id`): the same
digits on a card of another kind are another number.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fhir_mappings.identifiers import patient_key
from hub.imaging_ids import number_record_id
from storage.sql import index, merges
from storage.sql.prepared import Prepared
from storage.sql.schema import idx_token, imaging_study, record

#: Survivors that carry the number as an identifier. Both statements are asked by every query for a number, and find
#: nothing by a look or two at an index unless records were merged.
_BY_IDENTIFIER = Prepared(
    sa.select(record.c.id, record.c.owner)
    .select_from(idx_token.join(record, record.c.rid == idx_token.c.rid))
    .where(
        idx_token.c.param == "Patient.identifier",
        idx_token.c.code == sa.bindparam("number"),
        merges.linked(record.c.id),
    )
)
#: Survivors whose own images carry it; with an issuer (0010,0021) it may be a number of which no message ever told.
_BY_IMAGES = Prepared(
    sa.select(imaging_study.c.patient_id)
    .where(imaging_study.c.PatientID == sa.bindparam("number"), merges.linked(imaging_study.c.patient_id))
    .distinct()
)


def merged_records(connection: Connection, numbers: Iterable[str], seen: Any) -> list[str]:
    """Return the ids of the Patients that were merged into those whom *numbers* name, inside one owner each.

    Args:
        seen: the predicate over records within which the asker may read a link.

    Raises:
        HubError: incorrect, where they are more than :data:`storage.sql.merges.MAX_FOLLOWED`.
    """
    survivors: set[str] = set()
    for number in numbers:
        survivors.update(row.patient_id for row in _BY_IMAGES.all(connection, {"number": number}))
        for spelt in {number, patient_key(number)}:
            for row in _BY_IDENTIFIER.all(connection, {"number": index.whole(spelt)}):
                if row.id == number_record_id(row.owner, number):
                    survivors.add(row.id)
    if not survivors:
        return []
    given = sorted(survivors)
    return merges.standing_for(connection, given, seen)[len(given) :]
