"""DCMTK's programs on a running hub over TLS, each side showing a certificate (PS3.15 B.9 to B.12, BCP 195)."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.flows.hub_process import eventually
from tests.strangers.running import RunningHub, started
from tests.strangers.test_dcmtk import US, kept, made, succeeded
from tests.support.certificates import Authority
from tests.support.dimse_hub import free_port, program, run, taken
from tests.support.strangers import consortium_at

Files = tuple[Path, Path]
#: DCMTK's names of the profiles of BCP 195 (RFC 7525, RFC 9325): non-downgrading, downgrading, extended.
PROFILES = ("+py", "+px", "+pz")


class SecuredHub(RunningHub):
    """A hub that takes DICOM over TLS too, and the authority that its members' certificates come from."""

    authority: Authority
    kn: Files
    tls_port: int

    def tls(self, files: Files, *more: object) -> tuple[object, ...]:
        """Return the options with which a DCMTK program shows *files* and trusts the consortium alone."""
        certificate, key = files
        return ("+tls", key, certificate, "+cf", self.authority.ca, *more)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredHub]:
    """KN_PACS speaks for KN with one certificate, which its Endpoint names, and is reached over TLS."""
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority(folder)
    ours, theirs = authority.issue("localhost"), authority.issue("pacs.kn.example")
    port = free_port()
    resources = consortium_at(port)
    (endpoint,) = [one for one in resources if one["resourceType"] == "Endpoint" and "//KN_PACS@" in one["address"]]
    # DCMTK's movescu knows no TLS: a workstation of KN asks on an open line for what goes to KN_PACS on a secured one.
    station = copy.deepcopy(endpoint) | {"id": "ep-kn-station", "address": "dicom://KN_STATION@127.0.0.1:104"}
    station["identifier"][0]["value"] = "KN/dicom/station"
    endpoint["address"] = f"dicoms://KN_PACS@localhost:{port}"
    name(endpoint, "certificates", theirs[2])
    hub = SecuredHub(
        folder,
        dimse_tls_bind="127.0.0.1:0",
        tls_certificate=str(ours[0]),
        tls_key=str(ours[1]),
        tls_client_ca=str(authority.ca),
    )
    started(hub, [*resources, station])
    hub.authority, hub.kn, hub.their_port = authority, (theirs[0], theirs[1]), port
    ways = json.loads((hub.data_dir / "run" / "ports.json").read_text())["dimse"]
    hub.tls_port = int(ways["tls"].rpartition(":")[2])
    yield hub
    hub.stop()


def name(endpoint: dict[str, Any], setting: str, value: str) -> None:
    """Add a setting to the endpoint, as the sample's are written."""
    extensions = endpoint.setdefault("extension", [])
    extensions.append(
        {
            "url": "https://yixiehub.example/fhir/StructureDefinition/endpoint-setting",
            "extension": [{"url": "name", "valueString": setting}, {"url": "value", "valueString": value}],
        }
    )


def logged(hub: SecuredHub, event: str) -> list[dict[str, Any]]:
    """Return the lines of the log that tell of *event*."""
    lines = (json.loads(line) for line in hub.log().splitlines() if line.startswith("{"))
    return [line for line in lines if line.get("event") == event]


def refused(hub: SecuredHub, *arguments: object) -> str:
    """Ask for an echo that must fail, and return what the log says of it."""
    before = len(logged(hub, "tls_refused"))
    done = run("echoscu", *arguments, *US, "localhost", hub.tls_port)
    assert done.returncode != 0
    found = eventually(lambda: logged(hub, "tls_refused")[before:], what="the hub says whom it refused")
    return str(found[-1]["why"])


@pytest.mark.tool("echoscu", "storescu", "findscu")
@pytest.mark.parametrize(("number", "profile"), list(enumerate(PROFILES)))
def test_a_member_sends_and_asks_over_each_profile_of_bcp_195(
    secured: SecuredHub, tmp_path: Path, number: int, profile: str
) -> None:
    tls = secured.tls(secured.kn, profile)
    uid, sent = made(tmp_path / "sent", 780 + number, size=32)
    succeeded("echoscu", *tls, *US, "localhost", secured.tls_port)
    succeeded("storescu", *tls, *US, "-xe", "+sd", "localhost", secured.tls_port, tmp_path / "sent")
    query = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={uid}", "-k", "PatientID"]
    assert f"[P{780 + number}" in succeeded("findscu", *tls, *US, "-S", *query, "localhost", secured.tls_port)
    with httpx.Client(base_url=secured.dicom_web, timeout=60, headers=dict(secured.bearer("KN"))) as kn:
        assert kept(kn, uid) == sent


@pytest.mark.tool("storescu", "movescu", "storescp")
def test_what_is_moved_to_a_member_goes_over_tls_both_sides_known(secured: SecuredHub, tmp_path: Path) -> None:
    tls = secured.tls(secured.kn)
    uid, sent = made(tmp_path / "sent", 785, size=32)
    succeeded("storescu", *tls, *US, "-xe", "+sd", "localhost", secured.tls_port, tmp_path / "sent")
    certificate, key, _ = secured.authority.issue("localhost")
    (tmp_path / "moved").mkdir()
    receiver = (*secured.tls((certificate, key)), "-rc", "--bit-preserving", "+xe", "-od", tmp_path / "moved")
    with program(secured.their_port, "storescp", *receiver, secured.their_port):
        query = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={uid}"]
        station = ("-aet", "KN_STATION", "-aec", "YIXIE")
        succeeded("movescu", *station, "-aem", "KN_PACS", "-S", *query, "localhost", secured.ports["dimse"])
    assert taken(tmp_path / "moved") == sorted(sent.values())


@pytest.mark.tool("echoscu")
def test_a_certificate_of_another_authority_is_refused_in_words(secured: SecuredHub, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "Elsewhere CA").issue("pacs.kn.example")
    why = refused(secured, *secured.tls((stranger[0], stranger[1])))
    assert why.startswith("the peer's certificate is not trusted: ")


@pytest.mark.tool("echoscu")
def test_who_shows_no_certificate_is_told_from_who_shows_a_wrong_one(secured: SecuredHub) -> None:
    assert refused(secured, "+tla", "+cf", secured.authority.ca) == "the peer showed no certificate"


@pytest.mark.tool("echoscu")
def test_a_profile_that_is_retired_is_refused_in_words(secured: SecuredHub) -> None:
    assert refused(secured, *secured.tls(secured.kn, "+pa")) == "the peer offers no suite of BCP 195"


@pytest.mark.tool("echoscu")
def test_an_open_association_at_the_port_of_tls_is_refused_in_words(secured: SecuredHub) -> None:
    assert refused(secured) == "the peer does not speak TLS here"


@pytest.mark.tool("echoscu")
def test_a_member_that_does_not_trust_the_hub_is_told_of(secured: SecuredHub, tmp_path: Path) -> None:
    certificate, key = secured.kn
    elsewhere = Authority(tmp_path, "Elsewhere CA").ca
    why = refused(secured, "+tls", key, certificate, "+cf", elsewhere)
    assert why == "the peer does not trust the hub's certificate"


@pytest.mark.tool("echoscu")
def test_a_trusted_certificate_speaks_for_no_other_member(secured: SecuredHub) -> None:
    certificate, key, _ = secured.authority.issue("pacs.qh.example")
    tls = secured.tls((certificate, key))
    assert run("echoscu", *tls, *US, "localhost", secured.tls_port).returncode != 0
    (line,) = logged(secured, "association_refused")
    assert "certificate" in line["why"]
    # The same peer under its own title is taken: it was refused as KN's, not as a stranger.
    succeeded("echoscu", *tls, "-aet", "QH_PACS", "-aec", "YIXIE", "localhost", secured.tls_port)
    # And on an open line nobody is KN.
    assert run("echoscu", *US, "localhost", secured.ports["dimse"]).returncode != 0
