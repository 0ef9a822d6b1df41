"""A hub in operation: one id from the wire to the last delivery, logs without patients, lost processes, a clean end."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Mapping
from typing import Any

from tests.flows.his import HIS, send_frames
from tests.flows.hub_process import HubProcess, eventually
from tests.flows.test_referral_and_lab import LAB_ORDER, REFERRAL, accepted, result

#: What the messages and requests of these tests say about people; none of it may be in a log.
SECRETS = (
    "周建国",
    "李秀英",
    "19591001",
    "990001195910015710",
    "990001195507080264",
    "ZY20250612007",
    "P20250611002",
    "0000020002",
    "ZHENGJIANGUO",
    "胸痛",
)


def log_lines(hub: HubProcess) -> list[dict[str, Any]]:
    """Return the JSON lines of the hub's log; what is no JSON is given as ``{"text": line}``."""
    found = []
    for line in hub.log().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            found.append({"text": line})
    return found


def children(hub: HubProcess) -> Mapping[str, int]:
    """Return the processes of *hub* by door."""
    paths = list((hub.data_dir / "run").glob("processes-*.json"))
    return json.loads(paths[0].read_text())["children"] if paths else {}


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def trace_of(hub: HubProcess, control_id: str) -> dict[str, Any]:
    operator = hub.asker("YY", role="operator")
    [message] = operator.get(f"/ops/messages?control_id={control_id}")["messages"]
    found: dict[str, Any] = operator.get(f"/ops/trace/{message['correlation_id']}")
    return found


def test_one_id_leads_from_the_first_byte_to_the_last_acknowledgement(hub: HubProcess, kn_his: HIS) -> None:
    # An order by v2, the laboratory's result by v2, and the result at the hospital that ordered.
    assert accepted(send_frames(hub.ports["mllp"], LAB_ORDER))
    assert accepted(send_frames(hub.ports["mllp"], result("QM1", "F", "6.90", at="20250611142000")))
    kn_his.wait_for(1, "ORU^R01")

    def delivered() -> dict[str, Any] | None:
        way = trace_of(hub, "KN20250611LAB01")
        sent = [one for one in way["deliveries"] if one["destination"] == "KN/mllp" and one["state"] == "sent"]
        return way if any("MSA|AA" in one["acknowledgement"] and one["task"] for one in sent) else None

    way = eventually(delivered, what="the last acknowledgement is in the trace")
    assert [(one["type"], one["door"], one["institution"]) for one in way["arrivals"]] == [("ORM^O01", "mllp", "KN")]
    assert "MSA|CA|KN20250611LAB01" in way["arrivals"][0]["acknowledgement"]
    assert "lab-outsourcing" in {one["code"] for one in way["tasks"]}
    assert any(one.startswith("ServiceRequest/") for one in way["records"])

    # The result has an id of its own, which leads to the same delivery; that carries the id of the case.
    own = trace_of(hub, "QM1")
    assert [one["type"] for one in own["arrivals"]] == ["ORU^R01"]
    assert any(one["destination"] == "KN/mllp" and "MSA|AA" in one["acknowledgement"] for one in own["deliveries"])
    logged = {one.get("correlation_id") for one in log_lines(hub) if one.get("event") == "delivered"}
    assert way["correlation_id"] in logged

    # The same over HTTP: the client names the id.
    kn = hub.asker("KN")
    made = kn.post("/fhir/Patient", {"resourceType": "Patient"}, headers={"X-Correlation-Id": "case-77"})
    way = hub.asker("YY", role="operator").get("/ops/trace/case-77")
    assert [one["door"] for one in way["arrivals"]] == ["fhir"]
    assert f"Patient/{made['id']}" in way["records"]


def test_the_log_is_json_and_says_nothing_about_patients(hub: HubProcess, kn_his: HIS) -> None:
    port = hub.ports["mllp"]
    assert accepted(send_frames(port, REFERRAL, LAB_ORDER))
    kn = hub.asker("KN", "0231")
    # Success, refusal and what is malformed, at each door that takes text.
    send_frames(port, REFERRAL.replace(b"REF^I12^REF_I12", b"REF^I99^REF_I12"), "周建国 no message".encode())
    kn.get("/fhir/Patient?name=周建国")
    kn.get("/fhir/Patient?naem=周建国", status=400)
    kn.get("/fhir/Patient/周建国", status=404)
    kn.request("POST", "/fhir/Patient", content="{周建国".encode(), headers={"Content-Type": "application/fhir+json"})
    kn.post("/fhir/Patient", {"resourceType": "Patient", "name": [{"text": "周建国"}], "gender": "李秀英"}, status=422)
    kn_his.answers = ["AE", "AR"]
    send_frames(port, result("QM2", "F", "6.90", at="20250611142000"))
    kn_his.wait_for(1, "ORU^R01")
    hub.asker("QH").get("/dicom-web/studies?PatientID=ZY20250612007", headers={"Accept": "application/dicom+json"})
    hub.asker("QH").get("/fhir/Task/周建国", status=404)

    lines = log_lines(hub)
    assert len(lines) > 3
    spoken = [one["text"] for one in lines if "text" in one]
    # The supervisor tells an operator's terminal where the doors are; everything else is structured.
    assert all("://" in one for one in spoken), spoken
    whole = json.dumps(lines, ensure_ascii=False)
    assert [one for one in SECRETS if one in whole] == []


def test_a_killed_process_of_each_door_comes_back_on_its_port(hub: HubProcess) -> None:
    kn = hub.asker("KN")
    first = dict(children(hub))
    doors = [name for name in first if name.partition("-")[0] in {"http", "mllp", "dimse", "worker"}]
    assert {name.partition("-")[0] for name in doors} == {"http", "mllp", "dimse", "worker"}
    for name in doors:
        os.kill(first[name], signal.SIGKILL)

    eventually(
        lambda: all(children(hub).get(name) not in {None, first[name]} for name in doors), what="all are started anew"
    )
    [told] = eventually(lambda: _sent(hub, REFERRAL), what="the MLLP door answers")
    assert accepted([told])
    eventually(lambda: _reached(hub.ports["dimse"]), what="the DIMSE door listens")
    eventually(lambda: _found(kn), what="the HTTP door answers with what was stored")
    assert hub.process is not None
    assert hub.process.poll() is None


def _sent(hub: HubProcess, message: bytes) -> list[bytes] | None:
    try:
        return send_frames(hub.ports["mllp"], message)
    except OSError:
        return None


def _reached(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def _found(kn: Any) -> bool:
    try:
        return kn.request("GET", "/fhir/Task?code=referral").status_code == 200 and bool(
            kn.search("/fhir/Task?code=referral")
        )
    except OSError:
        return False
    except Exception as error:  # a connection that the killed process had is gone
        if "httpx" in type(error).__module__ or "httpcore" in type(error).__module__:
            return False
        raise


def test_sigterm_ends_every_process_with_success_and_a_start_goes_on(hub: HubProcess, kn_his: HIS) -> None:
    assert accepted(send_frames(hub.ports["mllp"], REFERRAL))
    pids = children(hub).values()
    ports = dict(hub.ports)
    assert hub.process is not None

    hub.process.send_signal(signal.SIGTERM)

    assert hub.process.wait(30) == 0, hub.log()[-3000:]
    assert all(gone(pid) for pid in pids)
    assert not any(_reached(port) for port in ports.values())
    levels = {one.get("level") for one in log_lines(hub)}
    assert levels.isdisjoint({"critical", "error"}), hub.log()[-3000:]
    hub.start()
    [task] = hub.asker("YL", "C101").search("/fhir/Task?code=referral")
    assert task["status"] == "requested"
