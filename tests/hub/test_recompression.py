"""The policy by which a member's images are kept compressed, and the pause in which a backup is made."""

from __future__ import annotations

import pytest

from fhir_mappings.identifiers import CANONICAL_BASE
from hub.boot import Services
from hub.errors import Category, HubError
from hub.members import distil
from hub.recompression import JPEG_2000, JPEG_LS, LEASE, Policy, paused, wrong_part


def test_nothing_is_compressed_unless_a_member_says_so() -> None:
    assert Policy.of("") is None
    assert Policy.of("  ") is None


def test_a_policy_says_syntax_modalities_and_days() -> None:
    assert Policy.of("transfer-syntax=jpeg-ls") == Policy(syntax=JPEG_LS, modalities=(), after_days=30)
    said = Policy.of("modalities=CT,MR after-days=0 transfer-syntax=1.2.840.10008.1.2.4.90")
    assert said == Policy(syntax=JPEG_2000, modalities=("CT", "MR"), after_days=0)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("jpeg-ls", "jpeg-ls"),
        ("modalities=CT", "transfer-syntax="),
        ("transfer-syntax=htj2k", "transfer-syntax=htj2k"),
        ("transfer-syntax=1.2.840.10008.1.2.4.50", "transfer-syntax=1.2.840.10008.1.2.4.50"),
        ("transfer-syntax=jpeg-ls modalities=ct", "modalities=ct"),
        ("transfer-syntax=jpeg-ls modalities=CT,", "modalities=CT,"),
        ("transfer-syntax=jpeg-ls after-days=-1", "after-days=-1"),
        ("transfer-syntax=jpeg-ls after-days=99999", "after-days=99999"),
        ("transfer-syntax=jpeg-ls transfer-syntax=jpeg-ls", "transfer-syntax=jpeg-ls"),
        ("transfer-syntax=jpeg-ls quality=90", "quality=90"),
    ],
)
def test_a_policy_that_cannot_be_followed_names_its_wrong_part(text: str, part: str) -> None:
    assert wrong_part(text) == part


@pytest.mark.parametrize(("text", "taken"), [("transfer-syntax=jpeg-2000", True), ("transfer-syntax=jpeg", False)])
def test_the_import_refuses_a_policy_that_cannot_be_followed(text: str, taken: bool) -> None:
    one = {
        "resourceType": "Organization",
        "id": "kn",
        "identifier": [{"system": f"{CANONICAL_BASE}/NamingSystem/member", "value": "KN"}],
        "extension": [
            {
                "url": f"{CANONICAL_BASE}/StructureDefinition/member-setting",
                "extension": [{"url": "name", "valueString": "recompression"}, {"url": "value", "valueString": text}],
            }
        ],
    }
    if taken:
        assert distil([one])[0][0].settings == {"recompression": text}
        return
    with pytest.raises(HubError) as caught:
        distil([one])
    assert caught.value.where == "Organization/kn.recompression"
    assert "transfer-syntax=jpeg" in caught.value.message


def test_a_pause_waits_for_the_object_in_hand_and_ends_with_the_backup(hub_services: Services) -> None:
    services, waited = hub_services, []

    def take() -> int | None:
        return services.database.write(lambda tx: tx.timers.lease(LEASE, "worker", now=services.clock(), lease_s=300))

    epoch = take()
    assert epoch is not None

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        services.database.write(lambda tx: tx.timers.release(LEASE, epoch))

    with paused(services, sleep=sleep):
        assert len(waited) == 1
        assert take() is None
    assert take() is not None


def test_a_pause_that_does_not_come_says_so(sqlite_services: Services) -> None:
    services = sqlite_services
    services.database.write(lambda tx: tx.timers.lease(LEASE, "worker", now=services.clock(), lease_s=300))
    with pytest.raises(HubError) as caught, paused(services, wait_s=-1, sleep=lambda _: None):
        pass
    assert caught.value.category is Category.BUSY
