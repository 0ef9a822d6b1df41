"""Story 1: a county hospital's CT is read at the centre hospital, and the report comes home in the HIS's own words."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require_tool
from tests.flows.his import HIS, segment, send_frames
from tests.flows.hub_process import Asker, HubProcess, eventually
from tests.support.dicom import ROOT, make_series

#: 郑伟 in GBK: also valid UTF-8 of other letters, which is why nothing may believe it to be UTF-8.
ZHENG_WEI = bytes.fromhex("D6A3CEB0")

ORDER = (
    "MSH|^~\\&|HIS|KNYY|YIXIE|HUB|20250611083000||ORM^O01|KN202506110830001|P|2.4|||AL|AL|CHN\r"
    "PID|1|0000010086|0000010086^^^^IDCard~^^^^PatientNO~990001197602290170^^^^IdentifyNO||郑伟||19760229000000|M|||"
    "云岭示范县文化路1号^^^^990002^^H||^^^^^^^^12000000002|||M^已婚||||||1^汉族\r"
    "PV1|1|O|^^^0201^呼吸内科||||||||||||||||MZ20250611001\r"
    "ORC|NW|KN20250611001|||||^^^^^R||20250611083000|||0231^刘敏\r"
    "OBR|1|KN20250611001||CT0101^胸部CT平扫^L|R||||||||咳嗽待查|||0231^刘敏||||||||CT\r"
    "DG1|1||R05^咳嗽^ICD10|咳嗽\r"
).encode("gb18030")

FINDINGS = "右肺上叶见一约8mm磨玻璃结节，边界清。"
IMPRESSION = "右肺上叶磨玻璃结节，建议3个月复查。"


def storescu(hub: HubProcess, folder: Path, aet: str = "KN_PACS") -> None:
    """Send all files of *folder* with DCMTK as the PACS *aet*."""
    tool = require_tool("storescu")
    done = subprocess.run(
        [tool, "-aet", aet, "-aec", "YIXIE", "+sd", "127.0.0.1", str(hub.ports["dimse"]), str(folder)],
        env={"TCP_NODELAY": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")


def ct_folder(folder: Path, *, count: int = 3, **choices: object) -> Path:
    """Write a CT series of *count* slices."""
    folder.mkdir(parents=True)
    make_series(folder, count, **choices)
    return folder


def reference(kind: str, resource: dict[str, Any]) -> dict[str, str]:
    return {"reference": f"{kind}/{resource['id']}"}


def role_of(asker: Asker, code: str) -> str:
    [role] = asker.search(f"/fhir/PractitionerRole?identifier={code}")
    return f"PractitionerRole/{role['id']}"


def organization(asker: Asker, code: str) -> str:
    system = "https://yixiehub.example/fhir/NamingSystem/member"
    [found] = asker.search(f"/fhir/Organization?identifier={system}|{code}")
    return f"Organization/{found['id']}"


def trace_id(task: dict[str, Any]) -> str:
    """Return the correlation id of the case."""
    return str(task["groupIdentifier"]["value"])


@pytest.mark.tool("storescu")
def test_a_county_ct_is_read_at_the_centre_and_the_report_comes_home(
    hub: HubProcess, kn_his: HIS, tmp_path: Path
) -> None:
    # The order and the images arrive, each in the hospital's own way.
    [ack] = send_frames(hub.ports["mllp"], ORDER)
    # MSH-15 and MSH-16 ask for both: the accept acknowledgement here, the application one as a message of its own.
    assert b"MSA|CA|KN202506110830001" in ack, ack.decode("gb18030")
    [application] = kn_his.wait_for(1, "ACK^O01")
    assert segment(application, "MSA")[1:3] == ["AA", "KN202506110830001"]
    study_uid, other_uid = f"{ROOT}.1", f"{ROOT}.2"
    storescu(hub, ct_folder(tmp_path / "ct", study=1, patient_id="10086", patient_name=ZHENG_WEI))
    storescu(hub, ct_folder(tmp_path / "other", study=2, patient_id="20001", patient_name=b"LI^XIUYING"))

    kn = hub.asker("KN", "0231")
    study = eventually(
        lambda: next(iter(kn.search(f"/fhir/ImagingStudy?identifier=urn:oid:{study_uid}")), None),
        what="the study completes",
    )
    patients = kn.search("/fhir/Patient?identifier=10086") or kn.search("/fhir/Patient?identifier=0000010086")
    assert len(kn.search("/fhir/Patient?name=郑伟")) == 1
    [request] = kn.search("/fhir/ServiceRequest?identifier=KN20250611001")
    assert study["subject"]["reference"] == f"Patient/{patients[0]['id']}" == request["subject"]["reference"]
    assert study["basedOn"][0]["reference"] == f"ServiceRequest/{request['id']}"
    assert study["numberOfInstances"] == 3

    # Nobody else sees anything yet.
    yl_desk, qh = hub.asker("YL", role="desk"), hub.asker("QH")
    for stranger in (yl_desk, qh):
        stranger.get(f"/fhir/ImagingStudy/{study['id']}", status=404)
        assert stranger.search("/fhir/ImagingStudy") == []

    # KN asks YL to read; the desk assigns.
    task = kn.post(
        "/fhir/Task",
        {
            "resourceType": "Task",
            "status": "requested",
            "intent": "order",
            "priority": "routine",
            "code": {
                "coding": [{"system": "https://yixiehub.example/fhir/CodeSystem/workflow", "code": "remote-reading"}]
            },
            "focus": reference("ServiceRequest", request),
            "for": request["subject"],
            "requester": {"reference": role_of(kn, "0231")},
            "owner": {"reference": organization(kn, "YL")},
            "input": [{"type": {"text": "影像"}, "valueReference": reference("ImagingStudy", study)}],
        },
    )
    assert task["businessStatus"]["coding"][0]["code"] == "submitted"
    yl_desk.move(task["id"], "receive")
    yl_desk.move(task["id"], "assign", assignee=role_of(yl_desk, "C015"))

    # YL sees this study by DICOMweb, and no other of KN; QH sees nothing.
    accept = {"Accept": "application/dicom+json"}
    seen = yl_desk.get("/dicom-web/studies", headers=accept)
    assert [one["0020000D"]["Value"][0] for one in seen] == [study_uid]
    metadata = yl_desk.get(f"/dicom-web/studies/{study_uid}/metadata", headers=accept)
    assert len(metadata) == 3
    assert "郑伟" in metadata[0]["00100010"]["Value"][0].values()
    assert yl_desk.request("GET", f"/dicom-web/studies/{other_uid}/metadata", headers=accept).status_code == 404
    assert qh.request("GET", f"/dicom-web/studies/{study_uid}/metadata", headers=accept).status_code == 404
    qh.get(f"/fhir/Task/{task['id']}", status=404)

    # The writer writes, the reviewer returns once, then signs.
    writer, reviewer = hub.asker("YL", "C015"), hub.asker("YL", "C002")
    writer.move(task["id"], "start")
    finding = writer.post(
        "/fhir/Observation",
        {
            "resourceType": "Observation",
            "status": "preliminary",
            "code": {"coding": [{"system": "http://loinc.org", "code": "18782-3", "display": "影像所见"}]},
            "subject": request["subject"],
            "basedOn": [reference("ServiceRequest", request)],
            "valueString": FINDINGS,
        },
    )
    report = writer.post(
        "/fhir/DiagnosticReport",
        {
            "resourceType": "DiagnosticReport",
            "status": "preliminary",
            "code": {"coding": [{"system": "http://loinc.org", "code": "18748-4"}], "text": "胸部CT平扫"},
            "subject": request["subject"],
            "basedOn": [reference("ServiceRequest", request)],
            "imagingStudy": [reference("ImagingStudy", study)],
            "result": [reference("Observation", finding)],
            "conclusion": IMPRESSION,
        },
    )
    writer.move(task["id"], "preliminary", output=f"DiagnosticReport/{report['id']}")
    refused = writer.move(task["id"], "final", status=409)
    assert refused["resourceType"] == "OperationOutcome"
    # No way leads past the reviewer.
    writer.put(f"/fhir/DiagnosticReport/{report['id']}", {**report, "status": "final"}, status=409)
    reviewer.move(task["id"], "return-report", reason="请补充测量密度")
    writer.move(task["id"], "start")
    writer.put(f"/fhir/Observation/{finding['id']}", {**finding, "valueString": FINDINGS + "CT值约-620HU。"})
    writer.move(task["id"], "preliminary")
    reviewer.move(task["id"], "final")

    # KN's HIS gets the report in GBK, with both signatories and the PDF, and its answer is stored.
    [result] = kn_his.wait_for(1, "ORU^R01")
    obr = segment(result, "OBR")
    assert obr[2] == "KN20250611001"
    assert obr[25] == "F"
    assert "韩磊" in obr[32]
    assert "宋洁" in obr[33]
    assert segment(result, "PID")[2].lstrip("0") == "10086"
    shown = [line for line in result if line.startswith("OBX")]
    assert any(FINDINGS in line for line in shown)
    assert any(IMPRESSION in line for line in shown)
    document = next(line.split("|")[5] for line in shown if line.split("|")[2] == "ED")
    assert base64.b64decode(document.split("^")[-1]).startswith(b"%PDF")
    eventually(
        lambda: kn.get(f"/fhir/Task/{task['id']}")["businessStatus"]["coding"][0]["code"] == "delivered",
        what="the stored acknowledgement closes the loop",
    )
    operator = hub.asker("YY", role="operator")
    [arrival] = operator.get("/ops/messages?control_id=KN202506110830001")["messages"]
    assert arrival["charset"] in {"gb18030", "gbk"}
    case = trace_id(kn.get(f"/fhir/Task/{task['id']}"))
    way = operator.get(f"/ops/trace/{case}")
    assert [
        one["acknowledgement"].splitlines()[1]
        for one in way["deliveries"]
        if one["destination"] == "KN/mllp" and one["state"] == "sent" and one["task"] == f"Task/{task['id']}"
    ] == [f"MSA|AA|{segment(result, 'MSH')[9]}"]
    signed = kn.search(f"/fhir/Provenance?target=DiagnosticReport/{report['id']}")
    assert len({one["signature"][0]["who"]["reference"] for one in signed if "signature" in one}) == 2
    final = kn.get(f"/fhir/DiagnosticReport/{report['id']}")
    assert final["status"] == "final"

    # An amendment is a new version and a corrected result.
    current = reviewer.get(f"/fhir/DiagnosticReport/{report['id']}")
    reviewer.put(
        f"/fhir/DiagnosticReport/{report['id']}",
        {**current, "status": "amended", "conclusion": "右肺上叶磨玻璃结节，建议增强CT。"},
    )
    reviewer.move(task["id"], "amend", reason="补充诊断意见")
    corrected = kn_his.wait_for(2, "ORU^R01")[-1]
    assert segment(corrected, "OBR")[25] == "C"
    assert any("建议增强CT" in line for line in corrected)
    after = kn.get(f"/fhir/DiagnosticReport/{report['id']}")
    assert int(after["meta"]["versionId"]) > int(final["meta"]["versionId"])

    # KN can list who looked at its patient.
    looked = kn.get(f"/fhir/AuditEvent?patient={patients[0]['id']}&_count=200")
    agents = {entry["resource"]["agent"][1]["who"]["identifier"]["value"] for entry in looked["entry"]}
    assert {"KN", "YL"} <= agents
    assert "QH" not in agents


@pytest.mark.tool("storescu")
def test_the_same_patient_id_at_two_hospitals_stays_two_patients(hub: HubProcess, tmp_path: Path) -> None:
    first, second = f"{ROOT}.3", f"{ROOT}.4"
    storescu(hub, ct_folder(tmp_path / "kn", study=3, patient_id="10086", patient_name=ZHENG_WEI))
    name = "周建国".encode("gb18030")
    storescu(hub, ct_folder(tmp_path / "qh", study=4, patient_id="10086", patient_name=name), aet="QH_PACS")

    kn, qh = hub.asker("KN"), hub.asker("QH")
    for asker, uid, name in ((kn, first, "郑伟"), (qh, second, "周建国")):
        eventually(
            lambda asker=asker, uid=uid: asker.search(f"/fhir/ImagingStudy?identifier=urn:oid:{uid}"),
            what="the study completes",
        )  # type: ignore[misc]
        found = asker.get("/dicom-web/studies?PatientID=10086", headers={"Accept": "application/dicom+json"})
        assert [one["0020000D"]["Value"][0] for one in found] == [uid]
        [patient] = asker.search("/fhir/Patient?identifier=10086")
        assert patient["name"][0]["text"] == name
        assert "link" not in patient
