"""``hub share``: the links of ``$share`` at the command line, by the same rules."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hub.boot import Services, assemble
from hub.config import load
from hub.sharing import Outcome
from tests.hub.cli.conftest import Hub
from tests.support.images import QH, ROOT, STUDY, ct, receive

EARLIER = f"{ROOT}.2"
#: 刘敏, a physician of KN.
PHYSICIAN = ("--practitioner", "0231")


@pytest.fixture
def hub(consortium: Hub) -> Hub:
    services = opened()
    try:
        receive(services, ct())
        receive(services, ct(study=EARLIER, StudyDate="20240101"))
        receive(services, ct(study=f"{ROOT}.3"), actor=QH)
    finally:
        services.close()
    return consortium


def opened() -> Services:
    return assemble(load(), node="test")


def attempt(made: dict[str, Any], password: str) -> Outcome:
    services = opened()
    try:
        secret = made["url"].rpartition("/")[2]
        return services.sharing.open(secret, password, address="192.0.2.9").outcome
    finally:
        services.close()


def created(hub: Hub, *options: str) -> dict[str, Any]:
    done = hub("share", "create", "KN", STUDY, *PHYSICIAN, "--json", *options)
    assert done.exit_code == 0, (done.output, done.exception)
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def listed(hub: Hub) -> list[dict[str, Any]]:
    done = hub("share", "list", "KN", STUDY, "--json")
    assert done.exit_code == 0, done.exception
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_link_is_made_opened_listed_and_ended(hub: Hub) -> None:
    made = created(hub, "--days", "2", "--purpose", "外院就诊")
    assert made["studies"] == [STUDY]
    assert "康宁医院" in made["institution"]
    left = datetime.fromisoformat(made["expires"]) - datetime.now(UTC)
    assert timedelta(days=1) < left <= timedelta(days=2)
    wrong = "000000" if made["password"] != "000000" else "111111"
    assert [attempt(made, one) for one in (wrong, made["password"])] == [Outcome.WRONG, Outcome.OPENED]
    (one,) = listed(hub)
    assert (one["id"], one["state"], one["by"], one["purpose"]) == (made["id"], "open", "0231", "外院就诊")
    assert [(access["outcome"], access["address"]) for access in one["accesses"]] == [
        ("0", "192.0.2.9"), ("4", "192.0.2.9"),
    ]  # fmt: skip
    told = hub("share", "list", "KN", STUDY).stdout
    assert f"{made['id']}  有效/open" in told
    assert "失败/failed  192.0.2.9" in told
    done = hub("share", "revoke", "KN", STUDY, made["id"])
    assert done.stdout.startswith(f"已撤销 / revoked: {made['id']}")
    assert attempt(made, made["password"]) is Outcome.GONE
    assert [one["state"] for one in listed(hub)] == ["revoked"]


def test_what_is_printed_is_the_link_its_password_and_its_code(hub: Hub, tmp_path: Path) -> None:
    picture = tmp_path / "code.png"
    done = hub("share", "create", "KN", STUDY, *PHYSICIAN, "--history", "--png", str(picture))
    assert done.exit_code == 0, done.exception
    lines = done.stdout.splitlines()
    code = [line for line in lines if line and set(line) <= set("█▀▄ ")]
    assert len(code) > 15
    (address,) = [line.partition(":")[2].strip() for line in lines if line.startswith("链接")]
    (password,) = [line.partition(":")[2].strip() for line in lines if line.startswith("密码")]
    assert attempt({"url": address}, password) is Outcome.OPENED
    with Image.open(picture) as image:
        assert image.width >= 600
    (one,) = listed(hub)
    assert one["studies"] == [STUDY, EARLIER]
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "XX", STUDY, *PHYSICIAN), "no active member XX"),
        (("create", "KN", STUDY, "--practitioner", "9999"), "no active practitioner 9999"),
        (("create", "KN", "1.2.3", *PHYSICIAN), "no such study"),
        (("create", "KN", f"{ROOT}.3", *PHYSICIAN), "no such study"),
        (("create", "KN", STUDY, *PHYSICIAN, "--days", "91"), "1 to 90 days"),
        (("create", "KN", STUDY, *PHYSICIAN, "--note", "x" * 501), "500 characters"),
        (("create", "KN", STUDY, *PHYSICIAN, "--png", "."), "The file exists"),
        (("list", "QH", STUDY), "no such study"),
        (("revoke", "KN", STUDY, "nobodys"), "no such link"),
        (("revoke", "KN", EARLIER, "nobodys"), "no such link"),
    ],
)
def test_what_may_not_be_is_refused_and_leaves_no_link(hub: Hub, arguments: tuple[str, ...], said: str) -> None:
    done = hub("share", *arguments)
    assert done.exit_code != 0
    assert said in str(done.exception)
    assert listed(hub) == []


def test_only_a_person_who_may_share_makes_a_link(hub: Hub) -> None:
    nobody = hub("share", "create", "KN", STUDY)
    assert nobody.exit_code == 2
    empty = hub("share", "create", "KN", STUDY, "--practitioner", "")
    assert "Your role does not do this" in str(empty.exception)
    assert listed(hub) == []


def test_a_link_is_ended_by_the_study_that_it_was_made_for(hub: Hub) -> None:
    made = created(hub, "--history")
    assert "no such link" in str(hub("share", "revoke", "KN", EARLIER, made["id"]).exception)
    assert [one["state"] for one in listed(hub)] == ["open"]
