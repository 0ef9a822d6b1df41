"""A hub before an S3 server that is away: it takes and gives images, is killed, and loses nothing once S3 is back."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from tests.flows.conftest import import_members
from tests.flows.hub_process import Asker, HubProcess, eventually
from tests.support.dicom import make_ct
from tests.support.s3_stub import Stub, s3_stub

STUDY = 7
IMAGES = 5


def stow(kn: Asker, number: int) -> str:
    """Send one image and return its instance's address."""
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\n%s\r\n--b--\r\n" % make_ct(
        study=STUDY, instance=number, size=64
    )
    headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}
    answer = kn.request("POST", "/dicom-web/studies", content=body, headers=headers)
    assert answer.status_code == 200
    return str(answer.json()["00081199"]["Value"][0]["00081190"]["Value"][0]).partition("/dicom-web")[2]


def fetch(kn: Asker, address: str) -> bytes:
    accept = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
    answer = kn.request("GET", f"/dicom-web{address}", headers=accept)
    assert answer.status_code == 200
    # The boundary is another each time.
    return answer.content.partition(b"\r\n\r\n")[2].rpartition(b"\r\n--")[0]


def uploads(kn: Asker) -> dict[str, Any]:
    answer = kn.request("GET", "/readyz")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()["uploads"]
    return found


def sound(stub: Stub) -> list[str]:
    """The digests that S3 has, each with the bytes of that name."""
    digests = [name.rpartition("/")[2] for name in stub.objects]
    assert all(hashlib.sha256(data).hexdigest() in name for name, data in stub.objects.items())
    return digests


def test_images_are_taken_while_s3_is_away_and_arrive_there_after_a_kill(tmp_path: Path) -> None:
    with s3_stub() as stub:
        stub.faults.status = 503
        hub = HubProcess(
            tmp_path,
            objects_url="s3://bucket",
            objects_spool="durable",
            s3_endpoint=stub.endpoint,
            s3_access_key="key",
            s3_secret_key="secret",
            objects_upload_alert_s="0.5",
            # The alerts are looked at four times in this time.
            queue_alert_s="1",
        )
        hub.run("migrate")
        import_members(hub)
        hub.start()
        try:
            kn = hub.asker("KN")
            addresses = [stow(kn, number) for number in range(1, IMAGES + 1)]
            images = [fetch(kn, address) for address in addresses]
            eventually(lambda: uploads(kn)["waiting"] >= IMAGES, what="readiness tells what waits")
            eventually(
                lambda: 'hub_alert{key="uploads|' in kn.request("GET", "/metrics").text,
                what="the age of what waits raises the alert",
            )
            assert stub.objects == {}
            hub.kill()
            stub.faults.status = 0
            hub.start()
            eventually(lambda: uploads(kn)["waiting"] == 0, what="what waited is uploaded")
            assert len(sound(stub)) >= IMAGES
            eventually(
                lambda: 'hub_alert{key="uploads|' not in kn.request("GET", "/metrics").text, what="the alert clears"
            )
            assert [fetch(kn, address) for address in addresses] == images
            said = hub.run("check")
            assert "0 objects, 0 bytes wait for S3" in said
            assert re.search(r"^s3 +ok  takes uploads$", said, re.MULTILINE)
            hub.run("fsck")
        finally:
            hub.stop()
