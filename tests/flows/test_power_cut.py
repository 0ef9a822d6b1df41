"""Every process is killed while all doors are taking data: what was acknowledged is there afterwards, with its hash."""

from __future__ import annotations

import io
import threading

import httpx
import pydicom

from adapters.dimse.negotiation import Context
from tests.flows.his import send_frames
from tests.flows.hub_process import HubProcess, eventually
from tests.support.dicom import CT_IMAGE_STORAGE, EXPLICIT, ct_tags, make_ct
from tests.support.dimse_peer import associated, c_store

#: Acknowledgements of every kind that must have come before the cut.
ENOUGH = 15


class Senders:
    """Four peers that send as fast as they are answered, and remember what they were promised."""

    def __init__(self, hub: HubProcess, token: str) -> None:
        self.patients: list[str] = []
        self.controls: list[str] = []
        self.instances: list[str] = []
        self.stowed: list[str] = []
        self._hub = hub
        self._token = token
        self._threads = [threading.Thread(target=one) for one in (self._fhir, self._v2, self._dicom, self._stow)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def promised(self) -> bool:
        return min(len(self.patients), len(self.controls), len(self.instances), len(self.stowed)) >= ENOUGH

    def _fhir(self) -> None:
        with httpx.Client(timeout=10, headers={"Authorization": f"Bearer {self._token}"}) as client:
            for number in range(100_000):
                body = {"resourceType": "Patient", "identifier": [{"system": "urn:oid:1.2.3", "value": str(number)}]}
                try:
                    answer = client.post(f"{self._hub.http}/fhir/Patient", json=body)
                except httpx.HTTPError:
                    return
                if answer.status_code == 201:
                    self.patients.append(answer.json()["id"])

    def _v2(self) -> None:
        for number in range(100_000):
            message = (
                f"MSH|^~\\&|HIS|KNYY|YIXIE|HUB|20250611083000||ADT^A04|CUT{number}|P|2.4\rEVN|A04|20250611083000\r"
                f"PID|1||{number + 5000:010}^^^^IDCard||郑伟||19760229|M\r"
            ).encode("gb18030")
            try:
                [answer] = send_frames(self._hub.ports["mllp"], message, timeout_s=10)
            except OSError:
                return
            if b"MSA|AA" in answer:
                self.controls.append(f"CUT{number}")

    def _dicom(self) -> None:
        context = Context(CT_IMAGE_STORAGE, EXPLICIT)
        with associated(self._hub.ports["dimse"], context) as peer:
            for number in range(1, 100_000):
                tags = ct_tags(study=9, instance=number, size=64)
                status, _ = c_store(peer, tags)
                if status != 0x0000:
                    return
                self.instances.append(str(tags[0x00080018][1]))

    def _stow(self) -> None:
        headers = {
            "Authorization": f"Bearer {self._token}",
            "Content-Type": 'multipart/related; type="application/dicom"; boundary=b',
        }
        with httpx.Client(timeout=10, headers=headers) as client:
            for number in range(1, 100_000):
                body = b"--b\r\nContent-Type: application/dicom\r\n\r\n%s\r\n--b--\r\n" % make_ct(
                    study=8, instance=number, size=64
                )
                try:
                    answer = client.post(f"{self._hub.http}/dicom-web/studies", content=body)
                except httpx.HTTPError:
                    return
                if answer.status_code == 200:
                    self.stowed.append(str(ct_tags(study=8, instance=number)[0x00080018][1]))


def test_nothing_acknowledged_is_lost_when_the_power_goes(hub: HubProcess) -> None:
    senders = Senders(hub, hub.token("KN"))
    senders.start()
    eventually(senders.promised, what="every door acknowledges")
    hub.kill()
    senders.join()

    hub.start()
    kn = hub.asker("KN")

    for patient in senders.patients:
        kn.get(f"/fhir/Patient/{patient}")
    for control in senders.controls:
        number = int(control.removeprefix("CUT")) + 5000
        assert len(kn.search(f"/fhir/Patient?identifier={number:010}")) == 1
    accept = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
    for uid in (*senders.instances, *senders.stowed):
        study = uid.rpartition(".")[0].rpartition(".")[0]
        found = kn.request("GET", f"/dicom-web/studies/{study}/series/{study}.1/instances/{uid}", headers=accept)
        assert found.status_code == 200
        number = int(uid.rpartition(".")[2])
        assert _pixels(make_ct(study=8 if uid in senders.stowed else 9, instance=number, size=64)) in found.content
    # No half of anything is left: both commands exit with an error when something does not agree.
    hub.run("fsck")
    hub.run("audit", "verify")


def _pixels(part10: bytes) -> bytes:
    return bytes(pydicom.dcmread(io.BytesIO(part10)).PixelData)
