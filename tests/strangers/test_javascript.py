"""Clients in JavaScript on a running hub: the npm packages dicomweb-client, which OHIF asks with, and dcmjs-dimse.

How the packages get here stands at the fixture ``packages``.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pydicom
import pytest

from tests.strangers.running import RunningHub
from tests.support.dicom import ROOT, make_ct
from tests.support.strangers import Node


@pytest.mark.tool("node", "npm")
def test_the_client_that_ohif_asks_with_stores_finds_and_retrieves(hub: RunningHub, node: Node, tmp_path: Path) -> None:
    study, path = f"{ROOT}.731", tmp_path / "sent.dcm"
    sent = make_ct(path, study=731, patient_id="P731", size=64)
    said = node("web.js", hub.dicom_web, hub.token("KN"), study, stdin=path)
    pixels = pydicom.dcmread(io.BytesIO(sent)).PixelData
    assert (said["count"], said["name"], said["missing"]) == (1, "郑伟", 404)
    assert base64.b64decode(said["frame"]) == pixels
    assert base64.b64decode(said["bulk"]) == pixels
    assert base64.b64decode(said["whole"]) == sent
    assert [base64.b64decode(one) for one in said["all"]] == [sent]
    assert base64.b64decode(said["rendered"]).startswith(b"\xff\xd8")


@pytest.mark.tool("node", "npm")
def test_dcmjs_dimse_echoes_stores_finds_moves_and_gets(hub: RunningHub, node: Node, tmp_path: Path) -> None:
    study, path = f"{ROOT}.732", tmp_path / "sent.dcm"
    make_ct(path, study=732, patient_id="P732", size=64)
    said = node("dimse.js", hub.ports["dimse"], path, study, hub.their_port)
    instance = f"{study}.1.1"
    assert [one["status"] for one in said["echo"]] == [0]
    assert [one["status"] for one in said["store"]] == [0]
    assert [one["status"] for one in said["find"]] == [0xFF00, 0]
    assert said["find"][0]["data"]["PatientID"] == "P732"
    assert said["move"][-1]["status"] == said["get"][-1]["status"] == 0
    assert said["move"][-1]["completed"] == said["get"][-1]["completed"] == 1
    assert said["received"] == {"moved": [instance], "got": [instance]}
