"""Quotas of a member of the sample consortium, under a clock of the test's."""

from __future__ import annotations

from hub.boot import Services
from hub.intake_policy import SETTING
from hub.members import MEMBER_SETTING_URL
from storage.quotas import SharedMinutes
from tests.support.services import consortium


class Seconds:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def with_intake(services: Services, code: str, intake: str) -> Seconds:
    """Give the member *code* the quotas *intake*, and return the clock by which its minutes pass."""
    organization = next(
        one
        for one in consortium()
        if one["resourceType"] == "Organization" and code in [each["value"] for each in one["identifier"]]
    )
    setting = {
        "url": MEMBER_SETTING_URL,
        "extension": [{"url": "name", "valueString": SETTING}, {"url": "value", "valueString": intake}],
    }
    services.directory.load([{**organization, "extension": [*organization.get("extension", ()), setting]}])
    clock = Seconds()
    services.__dict__["minutes"] = SharedMinutes(services.settings.data_dir / "run" / "quotas", seconds=clock)
    return clock
