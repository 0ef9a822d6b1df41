"""The hub as an operator runs it, for programs that know nothing of it; one for all tests of a test process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from hub.actor import Actor
from hub.cli.common import services
from hub.config import Settings
from tests.flows.hub_process import HubProcess

Hub = TypeVar("Hub", bound="RunningHub")


class RunningHub(HubProcess):
    """A running hub that hands out tokens by the dozen.

    Attributes:
        their_port: where the hub looks for the AE title KN_PACS.
    """

    their_port: int = 0

    def start(self) -> Self:
        """Start serving and wait until every door answers."""
        super().start()
        return self

    def prepare(self, resources: list[dict[str, Any]]) -> None:
        """Make the databases and import the members."""
        self.run("migrate")
        path = self.folder / "members.json"
        bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": one} for one in resources]}
        path.write_text(json.dumps(bundle, ensure_ascii=False), "utf-8")
        self.run("members", "import", str(path))

    def issue(self, *institutions: str) -> None:
        """Make a token for each of *institutions*, as ``hub token`` does one by one."""
        with services(Settings(data_dir=self.data_dir)) as opened:
            for code in institutions:
                actor = Actor(institution=code, roles=frozenset({"system"}), client="")
                self._tokens[code, "", ""] = opened.directory.issue_token(actor, ttl_s=3600)

    def bearer(self, institution: str) -> Mapping[str, str]:
        """Return the header that says who asks."""
        return {"Authorization": f"Bearer {self.token(institution)}"}

    @property
    def dicom_web(self) -> str:
        """Base URL of the DICOMweb door."""
        return f"{self.http}/dicom-web"


def running_hub(folder: Path, resources: list[dict[str, Any]], **settings: str) -> RunningHub:
    """Return a started hub with the members of *resources*."""
    return started(RunningHub(folder, **settings), resources)


def started(hub: Hub, resources: list[dict[str, Any]]) -> Hub:
    """Start *hub* with the members of *resources*, and return it."""
    hub.prepare(resources)
    codes = [
        identifier["value"]
        for one in resources
        if one["resourceType"] == "Organization"
        for identifier in one["identifier"]
        if identifier["system"].endswith("/member")
    ]
    hub.issue(*codes)
    return hub.start()
