"""Telling a member's own systems that a study is complete and can be fetched (PS3.4 annex R).

An AE whose Endpoint has the setting ``availability`` is told of each complete study of its own institution, and again when
late instances have changed it. What is said is read when it is sent: a notice that waited for days tells of today.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

from fhir_mappings.dicom import performed_step
from fhir_mappings.json import dumps, loads
from hub.access import UNRESTRICTED
from hub.delivery import asks_for, lane_name
from hub.performed_step import PerformedSteps
from hub.ports import Delivery, InstanceRow, NewDelivery, StudyKey, Tx

if TYPE_CHECKING:
    from hub.boot import Services

#: ``NewDelivery.kind`` of a notice.
KIND = "availability"
#: Most instances of one notice; a larger study is told of in several, as the standard allows (PS3.4 R.3.2.1.2).
PAGE = 5_000
#: Of the UIDs of notices.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://yixiehub.example/availability")
_STEP = "1.2.840.10008.3.1.2.3.3"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One notification.

    Attributes:
        SOPInstanceUID: its own, the same whenever the same delivery is tried again.
        attributes: its data set as DICOM JSON (PS3.4 table R.3.2-1).
        instances: how many it tells of.
    """

    SOPInstanceUID: str
    attributes: Json
    instances: int


def announce(tx: Tx, services: Services, study: Mapping[str, Any]) -> None:
    """Queue a notice of a study that has just become complete, for each AE of its owner that wants them."""
    points = services.directory.endpoints(str(study["owner"]), "dicom")
    wanted = [one for one in points if one.active and one.address and asks_for(one, "availability")]
    if not wanted:
        return
    key = StudyKey(owner=study["owner"], StudyInstanceUID=study["StudyInstanceUID"])
    versions = [(uid, *tx.imaging.series_version(key, uid)) for uid in sorted(tx.imaging.series_uids(key))]
    state = hashlib.sha256(repr(versions).encode()).hexdigest()[:32]
    payload = dumps({"study": key.StudyInstanceUID, "state": state})
    for to in wanted:
        about = {"control_id": key.StudyInstanceUID, "kind": KIND, "owner": key.owner, "destination": to.id}
        # A study may be completed again without anything new in it.
        if any(one.payload == payload for one in tx.outbox.deliveries(about, limit=1)):
            continue
        tx.outbox.enqueue(
            NewDelivery(
                destination=to.id,
                # Apart from the patient's images, which a system that refuses notices still wants.
                lane=lane_name(to.id, str(study["patient_id"]), slot=KIND),
                kind=KIND,
                payload=payload,
                owner=key.owner,
                control_id=key.StudyInstanceUID,
                content_type="application/json",
                correlation_id=study["correlation_id"],
                patient_id=study["patient_id"],
            )
        )


def notices(services: Services, delivery: Delivery) -> Iterator[Notice]:
    """Yield what *delivery* has to tell, as it is now; nothing where the study has no instance any more."""
    key = StudyKey(owner=delivery.owner, StudyInstanceUID=delivery.control_id)
    steps = services.database.read(lambda tx: _steps(tx, services, key))
    rows = _rows(services, key)
    number = 0
    while page := list(islice(rows, PAGE)):
        yield Notice(
            # Whoever has it already says so when it comes again (PS3.7 annex C.5.7, duplicate SOP Instance).
            SOPInstanceUID=f"2.25.{uuid.uuid5(_NAMESPACE, f'{delivery.created_at}|{delivery.id}|{number}').int}",
            attributes={
                "00081111": {"vr": "SQ", "Value": steps},
                "00081115": {
                    "vr": "SQ",
                    "Value": [
                        _series(uid, list(found), services.settings.ae_title)
                        for uid, found in groupby(page, lambda row: row.SeriesInstanceUID)
                    ],
                },
                "0020000D": _uid(key.StudyInstanceUID),
            },
            instances=len(page),
        )
        number += 1


def _rows(services: Services, key: StudyKey) -> Iterator[InstanceRow]:
    """Yield the current instances of a study, one series at a time."""
    for uid in services.database.read(lambda tx: tx.imaging.series_uids(key)):
        yield from services.database.read(partial(_series_rows, key=key, SeriesInstanceUID=uid))


def _series_rows(tx: Tx, *, key: StudyKey, SeriesInstanceUID: str) -> Sequence[InstanceRow]:
    return tx.imaging.instances_of(key, SeriesInstanceUID)


def _steps(tx: Tx, services: Services, key: StudyKey) -> list[Json]:
    """Return the performed procedure step of the study; there is room for one, so none is named where there are several."""
    procedures = PerformedSteps(services).expected(tx, key).procedures
    if len(procedures) != 1:
        return []
    stored = tx.records.get("Procedure", procedures[0], UNRESTRICTED)
    uid = performed_step.instance_uid(loads(stored.body)) if stored is not None else ""
    # Which kind of work a step was is not known as one of the codes of CID 9231, so the sequence is empty (type 2).
    return [{"00081150": _uid(_STEP), "00081155": _uid(uid), "00404019": {"vr": "SQ"}}] if uid else []


def _series(uid: str, rows: Sequence[InstanceRow], ae_title: str) -> Json:
    return {
        "0020000E": _uid(uid),
        "00081199": {
            "vr": "SQ",
            "Value": [
                {
                    "00080054": {"vr": "AE", "Value": [ae_title]},
                    "00080056": {"vr": "CS", "Value": ["ONLINE"]},
                    "00081150": _uid(row.SOPClassUID),
                    "00081155": _uid(row.SOPInstanceUID),
                }
                for row in rows
            ],
        },
    }


def _uid(value: str) -> Json:
    return {"vr": "UI", "Value": [value]}
