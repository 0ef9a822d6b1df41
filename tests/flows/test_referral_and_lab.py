"""Story 3: a referral by REF^I12 closes its loop, and an outsourced result comes home with its corrections in order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.flows.his import HIS, segment, send_frames
from tests.flows.hub_process import HubProcess, eventually

REFERRAL = (
    "MSH|^~\\&|HIS|KNYY|YIXIE|HUB|20250612094500||REF^I12^REF_I12|KN20250612REF01|P|2.5.1|||AL|AL|CHN|GB 18030-2000\r"
    "RF1|P|E^急|UP^上转||I|KNREF20250612001^KN|20250612094000||20250614235959|T^限于设备\r"
    "PRD|RP|刘敏||内科^^^云岭示范县康宁医院（测试）|||0231^KN\r"
    "PRD|RT|冯国强||心血管内科^^^云岭示范市中心医院（测试）|||C101^YL\r"
    "PID|1||ZY20250612007^^^KN^PatientNO~990001195910015710^^^^IdentifyNO||周建国||19591001|M\r"
    "DG1|1||I21.1^急性下壁ST段抬高型心肌梗死^ICD10|||A\r"
    "NTE|1||胸痛4小时，心电图II、III、aVF导联ST段抬高，已予阿替普酶溶栓，拟上转行PCI。\r"
).encode("gb18030")

LAB_ORDER = (
    "MSH|^~\\&|HIS|KNYY|YIXIE|QMJY|20250611100000||ORM^O01|KN20250611LAB01|P|2.4|||AL|AL|CHN\r"
    "PID|1||0000020002^^^^IDCard~990001195507080264^^^^IdentifyNO||李秀英||19550708|F\r"
    "ORC|NW|KN20250611031|||||^^^^^R||20250611100000|||0231^刘敏\r"
    "OBR|1|KN20250611031||LAB001^电解质四项^L|||20250611103000||||||CKD5期|||0231^刘敏\r"
).encode("gb18030")


def result(control_id: str, status: str, value: str, *, at: str) -> bytes:
    """Return the laboratory's ORU^R01 in UTF-8."""
    return (
        f"MSH|^~\\&|LIS|QMJY|YIXIE|HUB|{at}||ORU^R01|{control_id}|P|2.4|||AL|AL|CHN|UNICODE UTF-8\r"
        "PID|1||P20250611002^^^KN^PatientNO~990001195507080264^^^^IdentifyNO||李秀英||19550708|F\r"
        "ORC|RE|KN20250611031|QM250611777\r"
        "OBR|1|KN20250611031|QM250611777|LAB001^电解质四项^L|||20250611103000|||||||20250611125500|0002&血清|||||||"
        f"{at}||LAB|{status}|||||||Q003&蒋丽||Q011&梁宇\r"
        f"OBX|1|NM|2823-3^钾^LN||{value}|mmol/L|3.50-5.30|HH|||{status}|||{at}\r"
        f"OBX|2|NM|2951-2^钠^LN||138|mmol/L|137-147||||{status}|||{at}\r"
    ).encode()


def accepted(answers: list[bytes]) -> bool:
    """Whether every answer is AA or CA."""
    return all(b"MSA|AA" in one or b"MSA|CA" in one for one in answers)


def test_a_referral_by_v2_is_accepted_arrives_and_closes(hub: HubProcess, kn_his: HIS) -> None:
    assert accepted(send_frames(hub.ports["mllp"], REFERRAL))
    yl = hub.asker("YL", "C101")
    [task] = eventually(lambda: yl.search("/fhir/Task?code=referral"), what="the referral reaches YL")
    assert task["businessStatus"]["coding"][0]["code"] == "submitted"
    kind, _, patient_id = task["for"]["reference"].partition("/")
    assert kind == "Patient"
    kn = hub.asker("KN", "0231")
    record = kn.post(
        "/fhir/Observation",
        {
            "resourceType": "Observation",
            "status": "final",
            "code": {"text": "肌钙蛋白I"},
            "subject": task["for"],
            "valueQuantity": {"value": 2.31, "unit": "ng/mL"},
        },
    )

    # Before arrival YL sees the referral and not the record.
    yl.get(f"/fhir/{task['focus']['reference']}")
    yl.get(f"/fhir/Observation/{record['id']}", status=404)
    yl.move(task["id"], "review")
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    yl.move(task["id"], "accept", expected_at=tomorrow.isoformat(timespec="seconds"))
    [answer] = kn_his.wait_for(1, "RRI^I12")
    assert segment(answer, "MSA")[2] == "KN20250612REF01"
    assert segment(answer, "RF1")[1].startswith("A")
    assert "周建国" in segment(answer, "PID")[5]

    # Arrival opens the full record; feedback closes the loop and, with it, the record.
    yl.move(task["id"], "arrive")
    assert yl.get(f"/fhir/Observation/{record['id']}")["valueQuantity"]["value"] == 2.31
    everything = yl.get(f"/fhir/Patient/{patient_id}/$everything")
    assert any(entry["resource"]["id"] == record["id"] for entry in everything["entry"])
    hub.asker("QH").get(f"/fhir/Observation/{record['id']}", status=404)
    outcome = yl.post(
        "/fhir/DocumentReference",
        {
            "resourceType": "DocumentReference",
            "status": "current",
            "type": {"coding": [{"system": "urn:oid:2.16.156.10011.2.4", "code": "C0053", "display": "出院小结"}]},
            "subject": task["for"],
            "content": [{"attachment": {"contentType": "text/plain", "title": "PCI术后，双联抗血小板12个月"}}],
        },
    )
    done = _feed_back(yl, task["id"], f"DocumentReference/{outcome['id']}")
    assert done["status"] == "completed"
    assert kn.get(f"/fhir/DocumentReference/{outcome['id']}")["id"] == outcome["id"]
    yl.get(f"/fhir/Observation/{record['id']}", status=404)


def _feed_back(yl: Any, task_id: str, output: str) -> Any:
    moved = yl.move(task_id, "feedback", output=output)
    return moved if moved["resourceType"] == "Task" else yl.get(f"/fhir/Task/{task_id}")


def test_an_outsourced_result_comes_home_and_late_news_does_not_undo_it(hub: HubProcess, kn_his: HIS) -> None:
    assert accepted(send_frames(hub.ports["mllp"], LAB_ORDER))
    qm, kn = hub.asker("QM"), hub.asker("KN", "0231")
    [task] = eventually(lambda: qm.search("/fhir/Task?code=lab-outsourcing"), what="the order reaches the laboratory")

    assert accepted(send_frames(hub.ports["mllp"], result("QM20250611000777", "F", "6.90", at="20250611142000")))
    [first] = kn_his.wait_for(1, "ORU^R01")
    assert segment(first, "OBR")[2] == "KN20250611031"
    assert segment(first, "OBX")[5] == "6.90"
    assert segment(first, "OBX")[8] == "HH"
    assert "0000020002" in segment(first, "PID")[3]
    [request] = kn.search("/fhir/ServiceRequest?identifier=KN20250611031")
    [report] = kn.search(f"/fhir/DiagnosticReport?based-on=ServiceRequest/{request['id']}")
    assert report["status"] == "final"
    assert report["subject"] == request["subject"]
    critical = kn.search("/fhir/Task?code=critical-value")
    assert len(critical) == 1

    # The correction supersedes; a preliminary result that comes late is kept and changes nothing.
    assert accepted(
        send_frames(
            hub.ports["mllp"],
            result("QM20250611000778", "C", "6.70", at="20250611152000"),
            result("QM20250611000779", "P", "6.10", at="20250611130000"),
        )
    )
    corrected = kn_his.wait_for(2, "ORU^R01")[-1]
    assert segment(corrected, "OBX")[5] == "6.70"
    assert segment(corrected, "OBR")[25] == "C"
    after = kn.get(f"/fhir/DiagnosticReport/{report['id']}")
    assert after["status"] == "corrected"
    [potassium] = kn.search(f"/fhir/Observation?based-on=ServiceRequest/{request['id']}&code=2823-3")
    assert str(potassium["valueQuantity"]["value"]) in {"6.7", "6.70"}
    history = kn.get(f"/fhir/Observation/{potassium['id']}/_history")
    assert len(history["entry"]) >= 2
    assert len(kn_his.messages("ORU^R01")) == 2
    final = kn.get(f"/fhir/Task/{task['id']}")
    assert final["status"] == "completed"
