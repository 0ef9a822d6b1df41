"""What laboratory work is done on goes along with the order and comes back with the result, and nobody else's specimen does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fhir_mappings.hl7v2.tokenizer import Message
from fhir_mappings.json import loads
from hub.access import UNRESTRICTED
from hub.members import SETTING_URL
from hub.ports import NewVersion
from tests.hub.dispatch.test_news import Consortium
from tests.hub.dispatch.test_order_answers import PEER, settings
from tests.support.services import running
from tests.support.v2 import msh

NUMBER = "KN20250611041"


def order(event: str = "OML^O21", control: str = "NW", control_id: str = "KN1") -> str:
    specimen = ["SPM|1|KNSP1||SER^血清^HL70487||||LA^左臂^HL70163|||P|5^ml|||||20250611080000|20250611083000||Y"]
    lines = [f"ORC|{control}|{NUMBER}|||||||20250611100000|||0231^刘敏", f"OBR|1|{NUMBER}||LAB001^电解质^L"]
    body = [*specimen, *lines] if event == "OML^O33" else [*lines, *specimen]
    head = [
        msh(event, control_id, sent="20250611100000", f6="QMJY", f12="2.5.1"),
        "PID|1||0000020002^^^^IDCard||李秀英||19550708|F",
    ]
    return "\r".join([*head, *body, ""])


class Laboratory(Consortium):
    def reads(self, member: str, **values: str) -> None:
        """Let *member* read v2.5.1, with *values* as further settings."""
        resources = settings()
        for one in resources:
            names = {item["value"] for item in one.get("identifier", ())}
            if one["resourceType"] != "Endpoint" or f"{member}/mllp" not in names:
                continue
            for name, value in {"version-out": "2.5.1", **values}.items():
                parts = [{"url": "name", "valueString": name}, {"url": "value", "valueString": value}]
                held = [item for item in one.get("extension", ()) if item["extension"][0]["valueString"] != name]
                one["extension"] = [*held, {"url": SETTING_URL, "extension": parts}]
        self.services.directory.load(resources)

    def sent(self, to: str, kind: str) -> Message:
        [found] = [one for where, one in self.news(kind) if where == f"{to}/mllp"]
        return found


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Laboratory]:
    with running(tmp_path) as services:
        yield Laboratory(services)


@pytest.mark.parametrize("came", ["OML^O21", "OML^O33"])
@pytest.mark.parametrize("form", ["OML^O21", "OML^O33"])
def test_an_order_takes_its_specimen_along(hub: Laboratory, form: str, came: str) -> None:
    hub.reads("QM", **{"lab-orders": form})
    hub.receive(order(came))

    told = hub.sent("QM", "OML")

    assert f"{told.get('MSH-9.1')}^{told.get('MSH-9.2')}" == form
    spm = told.all("SPM")[0].get
    assert (spm(2), spm(4, 1), spm(8, 1), spm(11, 1), spm(12), spm(17), spm(18), spm(20)) == (
        "KNSP1", "SER", "LA", "P", "5", "20250611080000", "20250611083000", "Y",
    )  # fmt: skip


def test_a_laboratory_that_reads_no_spm_has_the_type_in_obr_15(hub: Laboratory) -> None:
    hub.reads("QM", **{"lab-orders": "ORM^O01"})
    hub.receive(order())
    told = hub.sent("QM", "ORM")
    assert told.first("SPM") is None
    assert told.all("OBR")[0].get(15, 1, 1) == "SER"


def test_a_specimen_of_an_institution_without_part_in_the_work_is_not_sent(hub: Laboratory) -> None:
    hub.reads("QM", **{"lab-orders": "OML^O21"})
    hub.receive(order())
    hub.news()
    [specimen] = hub.all("Specimen")
    theirs = {**specimen, "id": "aaaaaaaa-0000-4000-8000-000000000001"}

    def work(tx: object) -> None:
        [stored] = tx.records.by_identifier("ServiceRequest", None, NUMBER, UNRESTRICTED)  # type: ignore[attr-defined]
        request = {**loads(stored.body), "specimen": [{"reference": f"Specimen/{theirs['id']}"}]}
        tx.records.put_many(  # type: ignore[attr-defined]
            [NewVersion(resource=theirs, owner="YL"), NewVersion(resource=request, owner="KN")]
        )

    hub.services.database.write(work)
    lines = [msh("ORM^O01", "KN2", sent="20250611110000", f6="QMJY", f12="2.4"), "PID|1||0000020002^^^^IDCard||李秀英"]
    hub.receive("\r".join([*lines, f"ORC|CA|{NUMBER}", ""]))

    told = hub.sent("QM", "OML")
    assert (told.get("ORC-1"), told.first("SPM")) == ("CA", None)


def test_a_result_brings_the_laboratorys_specimen_back(hub: Laboratory) -> None:
    hub.reads("KN")
    hub.receive(order())
    hub.news()
    lines = [
        "MSH|^~\\&|LIS|QMJY|YIXIE|HUB|20250611160000||ORU^R01^ORU_R01|QM1|P|2.5.1||||||UNICODE UTF-8",
        "PID|1||QM77^^^QMJY^MR||李秀英||19550708|F",
        f"ORC|RE|{NUMBER}|QM1",
        f"OBR|1|{NUMBER}|QM1|LAB001^电解质^L|||20250611103000|||||||||||||||20250611160000|||F",
        "OBX|1|NM|K^钾^L||4.1|mmol/L|3.5-5.3|N|||F",
        "SPM|1|KNSP1^QMSP1||SER^血清^HL70487||||||||||||||20250611120000||||||HEM^溶血^HL70493",
        "",
    ]
    assert b"MSA|AA" in (hub.services.messages.receive("\r".join(lines).encode(), PEER) or b"")

    told = hub.sent("KN", "ORU")
    assert told.get("MSH-12") == "2.5.1"
    spm = told.all("SPM")[0].get
    assert (spm(2, 2), spm(4, 1), spm(24, 1)) == ("QMSP1", "SER", "HEM")
