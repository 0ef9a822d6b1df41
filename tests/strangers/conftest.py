"""One running hub for all programs of other makers that a test process tries on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import httpx
import pytest

from tests.strangers.running import RunningHub, running_hub
from tests.support import corpus
from tests.support.dimse_hub import free_port
from tests.support.strangers import consortium_at


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A running hub with the sample consortium and the institutions of the test files; KN_PACS listens, when it does, at ``their_port``."""
    port = free_port()
    one = running_hub(tmp_path_factory.mktemp("hub"), [*consortium_at(port), *corpus.members()])
    one.their_port = port
    yield one
    one.stop()


@pytest.fixture(scope="session")
def http(hub: RunningHub) -> Iterator[httpx.Client]:
    """A client of the DICOMweb door that is nobody yet."""
    with httpx.Client(base_url=hub.dicom_web, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def kn(hub: RunningHub) -> Iterator[httpx.Client]:
    """A client of KN's PACS at the DICOMweb door."""
    with httpx.Client(base_url=hub.dicom_web, timeout=60, headers=dict(hub.bearer("KN"))) as client:
        yield client


@pytest.fixture(scope="session")
def sent_by_dimse(hub: RunningHub) -> Mapping[str, corpus.Outcome]:
    """What C-STORE did with each of the library's test files."""
    return corpus.store_all(hub)


@pytest.fixture(scope="session")
def sent_by_web(hub: RunningHub, http: httpx.Client) -> Mapping[str, corpus.Outcome]:
    """What STOW-RS did with each of the library's test files."""
    return corpus.stow_all(hub, http)
