"""Performed procedure steps name their orders by the numbers of the worklist (PS3.3 table C.4-13)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from adapters.dimse import command as dimse
from adapters.dimse import status
from fhir_mappings.dicom.instance import InstanceHeader
from hub.boot import Services
from hub.imaging_ids import patient_id
from hub.ports import NewVersion
from tests.adapters.dimse.test_mpps import STEP, STUDY, ask, begun, code, procedure
from tests.support import services as support
from tests.support.dimse import FakeServices, running
from tests.support.dimse_peer import associated

BASE = "https://yixiehub.example/fhir"
HEADER = InstanceHeader(
    StudyInstanceUID=STUDY,
    SeriesInstanceUID="",
    SOPInstanceUID="",
    SOPClassUID="",
    TransferSyntaxUID="",
    PatientID="10086",
    IssuerOfPatientID="",
)
PATIENT = patient_id("KN", HEADER)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with support.running(tmp_path) as made:
        yield made


def order(id_: str, patient: str = PATIENT, **numbers: str) -> dict[str, Any]:
    """Return an order with *numbers*: ``accession``, ``requested_procedure``, ``scheduled_step``."""
    return {
        "resourceType": "ServiceRequest",
        "id": id_,
        "status": "active",
        "intent": "order",
        "subject": {"reference": f"Patient/{patient}"},
        "identifier": [
            {"system": f"{BASE}/NamingSystem/KN/{kind.replace('_', '-')}", "value": value}
            for kind, value in numbers.items()
        ],
    }


HEAD = order("head", accession="A1", requested_procedure="R1", scheduled_step="S1")
CHEST = order("chest", accession="A1", requested_procedure="R2", scheduled_step="S1")
#: Of another patient whose procedure has the same number.
OTHER = order("other", "someone", accession="A9", requested_procedure="R2", scheduled_step="S9")
PLAIN = order("plain", accession="A3")


@pytest.mark.parametrize(
    ("accession", "requested", "step", "meant"),
    [
        ("A1", "R2", "S1", "chest"),
        ("A1", "R1", "", "head"),
        # Neither the accession number nor the step tells the two apart.
        ("A1", "", "S1", None),
        ("", "R2", "S1", "chest"),
        ("", "", "S1", None),
        ("", "R9", "", None),
        ("", "", "S9", None),
        ("A3", "A3", "A3", "plain"),
        ("R1", "", "", None),
        ("A9", "R7", "", "other"),
    ],
)
def test_a_performed_step_fulfils_the_order_that_its_numbers_mean(
    services: Services, accession: str, requested: str, step: str, meant: str | None
) -> None:
    put = [NewVersion(resource=one, owner="KN") for one in (HEAD, CHEST, OTHER, PLAIN)]
    services.database.write(lambda tx: tx.records.put_many(put))
    scheduled = {
        "0020000D": {"vr": "UI", "Value": [STUDY]},
        **{
            tag: {"vr": "SH", "Value": [value]}
            for tag, value in (("00080050", accession), ("00401001", requested), ("00400009", step))
            if value
        },
    }
    with running(cast("FakeServices", services)) as door, associated(door.port, STEP) as peer:
        content = begun(**{"00400270": {"vr": "SQ", "Value": [scheduled]}})
        assert code(ask(peer, dimse.N_CREATE_RQ, content)) == status.SUCCESS
    based = procedure(services).get("basedOn")
    assert based == ([{"reference": f"ServiceRequest/{meant}"}] if meant else None)
