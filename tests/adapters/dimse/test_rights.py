"""An AE gets the services that its Endpoint names, and no other (setting ``services``)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from adapters.dimse.catalogue import OFFERS, RIGHTS, VERIFICATION
from adapters.dimse.negotiation import Context
from hub.config import Settings
from hub.endpoint_settings import SERVICES
from tests.support.dicom import CT_IMAGE_STORAGE, EXPLICIT
from tests.support.dimse import KN_PACS, FakeServices, running
from tests.support.dimse_peer import associated

#: What each word stands for on the wire (PS3.6 annex A), written out here so that the catalogue is not its own judge.
STORE = {CT_IMAGE_STORAGE, "1.3.6.1.4.1.99999.1.2"}
QUERY = "1.2.840.10008.5.1.4.1.2"
OF_RIGHT = {
    "echo": {VERIFICATION},
    "store": STORE,
    "find": {f"{QUERY}.{root}.1" for root in (1, 2, 3)},
    "move": {f"{QUERY}.{root}.2" for root in (1, 2, 3)},
    "get": {f"{QUERY}.{root}.3" for root in (1, 2, 3)},
    "commitment": {"1.2.840.10008.1.20.1"},
    "mpps": {"1.2.840.10008.3.1.2.3.3", "1.2.840.10008.3.1.2.3.4"},
    "worklist": {"1.2.840.10008.5.1.4.31"},
    "ups": {f"1.2.840.10008.5.1.4.34.6.{kind}" for kind in (1, 2, 3, 5)},
    "availability": {"1.2.840.10008.5.1.4.33"},
}


def accepted(tmp_path: Path, services: str) -> set[str]:
    """Return the SOP classes that an AE with *services* is granted of all that the hub has."""
    hub = FakeServices(Settings(data_dir=tmp_path))
    hub.directory.endpoints["KN_PACS"] = dataclasses.replace(KN_PACS, settings={"services": services})
    asked = sorted(set().union(*OF_RIGHT.values()))
    with running(hub) as door, associated(door.port, *(Context(one, EXPLICIT) for one in asked)) as peer:
        # Contexts are numbered 1, 3, 5 ... in the order in which they are proposed.
        return {asked[number // 2] for number in peer.accepted}


def test_the_words_are_the_same_everywhere() -> None:
    assert set(OF_RIGHT) == set(RIGHTS) == set(SERVICES)
    assert set().union(*OF_RIGHT.values()) - STORE == set(OFFERS)


@pytest.mark.parametrize("right", sorted(OF_RIGHT))
def test_a_right_opens_its_own_service_alone(tmp_path: Path, right: str) -> None:
    assert accepted(tmp_path, right) == OF_RIGHT[right]


@pytest.mark.parametrize("right", sorted(OF_RIGHT))
def test_without_a_right_its_service_alone_is_closed(tmp_path: Path, right: str) -> None:
    others = " ".join(sorted(set(OF_RIGHT) - {right}))
    assert accepted(tmp_path, others) == set().union(*OF_RIGHT.values()) - OF_RIGHT[right]
