"""Who may share which study, how a link is opened, and how it ends."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hub.access import scope_of
from hub.actor import Actor
from hub.boot import Services
from hub.errors import Category, HubError
from hub.imaging_ids import study_resource_id
from hub.ports import StudyKey
from hub.ports.sharing import Share
from hub.sharing import Made, Opening, Outcome
from tests.support.images import QH, ROOT, STUDY, FakeClock, ct, receive
from tests.support.services import running

DOCTOR = Actor(institution="KN", practitioner="0231", roles=frozenset({"doctor"}))
ADMIN = Actor(institution="KN", roles=frozenset({"admin"}), client="kn-admin")
EARLIER, OTHERS = f"{ROOT}.2", f"{ROOT}.3"
IMAGING_STUDY = study_resource_id("KN", STUDY)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def services(tmp_path: Path, clock: FakeClock) -> Iterator[Services]:
    with running(tmp_path, clock=clock, public_url="https://hub.example.cn") as one:
        receive(one, ct())
        receive(one, ct(study=EARLIER, StudyDate="20240101"))
        receive(one, ct(study=OTHERS, PatientID="20001", PatientName="LI^SI"))
        receive(one, ct(), actor=QH)
        yield one


def make(services: Services, actor: Actor = DOCTOR, study: str = IMAGING_STUDY, **more: Any) -> Made:
    return services.sharing.make(actor, study, **more)


def secret_of(made: Made) -> str:
    return made.url.rpartition("/")[2]


def opened(services: Services, made: Made, password: str | None = None, address: str = "10.0.0.1") -> Opening:
    return services.sharing.open(secret_of(made), made.password if password is None else password, address=address)


def wrong(made: Made) -> str:
    return "000000" if made.password != "000000" else "111111"


def seen(services: Services, token: str) -> set[tuple[str, str]]:
    actor = services.sharing.actor_for(token)
    if actor is None:
        return set()
    rows = services.imaging.find(actor, "study", []).rows
    return {(row["owner"], row["StudyInstanceUID"]) for row in rows}


def lines(services: Services) -> list[dict[str, Any]]:
    return services.database.read(
        lambda tx: [dict(one) for one in tx.audit.search({}, institution=None, limit=1000, before=None)]
    )


def test_a_link_shows_the_study_that_was_shared_and_no_other(services: Services) -> None:
    made = make(services, purpose="外院就诊", note="携带胶片")
    answer = opened(services, made)

    assert answer.outcome is Outcome.OPENED
    assert answer.StudyInstanceUID == STUDY
    assert made.url.startswith("https://hub.example.cn/share/")
    assert len(secret_of(made)) >= 43
    assert made.share.expires_at - made.share.created_at == timedelta(days=7)
    assert seen(services, answer.token) == {("KN", STUDY)}


def test_history_is_the_patients_other_studies_there_when_the_link_is_made(services: Services) -> None:
    made = make(services, history=True)
    receive(services, ct(study=f"{ROOT}.4"))

    assert seen(services, opened(services, made).token) == {("KN", STUDY), ("KN", EARLIER)}


def test_a_study_that_turns_out_to_be_somebody_elses_is_no_longer_shown(services: Services) -> None:
    token = opened(services, make(services)).token
    key = StudyKey(owner="KN", StudyInstanceUID=STUDY)
    services.database.write(lambda tx: tx.imaging.assign(key, patient_id="another"))

    assert seen(services, token) == set()


@pytest.mark.parametrize("role", ["nurse", "lab", "patient", "operator", "system", "admin"])
def test_only_doctors_and_the_desk_make_links(services: Services, role: str) -> None:
    with pytest.raises(HubError) as caught:
        make(services, Actor(institution="KN", roles=frozenset({role})))

    assert caught.value.category is Category.FORBIDDEN


def test_what_another_institution_holds_is_not_there_to_be_shared(services: Services) -> None:
    for institution in ("QH", "YL"):
        with pytest.raises(HubError) as caught:
            make(services, Actor(institution=institution, roles=frozenset({"doctor"})))
        assert caught.value.category is Category.NOT_FOUND


@pytest.mark.parametrize("days", [0, -1, 91])
def test_a_link_is_not_open_for_longer_than_the_setting_says(services: Services, days: int) -> None:
    with pytest.raises(HubError) as caught:
        make(services, days=days)

    assert caught.value.status == 422


def test_five_wrong_passwords_lock_the_link_even_for_the_right_one(services: Services, clock: FakeClock) -> None:
    made = make(services)
    outcomes = [opened(services, made, wrong(made)).outcome for _ in range(5)]

    assert outcomes == [Outcome.WRONG] * 5
    assert opened(services, made).outcome is Outcome.LOCKED
    clock.forward(15 * 60)
    assert opened(services, made).outcome is Outcome.OPENED


def test_twenty_wrong_passwords_close_the_link_for_good(services: Services, clock: FakeClock) -> None:
    made = make(services)
    for number in range(20):
        assert opened(services, made, wrong(made), address=f"10.0.0.{number}").outcome is Outcome.WRONG
        clock.forward(3600)

    assert opened(services, made).outcome is Outcome.CLOSED
    assert services.sharing.look(secret_of(made)).outcome is Outcome.CLOSED


def test_a_link_that_nobody_made_answers_as_one_whose_password_is_wrong(services: Services, clock: FakeClock) -> None:
    made = make(services)
    for _ in range(4):
        pairs = []
        for _ in range(6):
            known = services.sharing.open(secret_of(made), wrong(made), address="10.0.0.1")
            unknown = services.sharing.open("A" * 43, wrong(made), address="10.0.0.2")
            pairs.append((known, unknown))
        assert [known for known, _ in pairs] == [unknown for _, unknown in pairs]
        assert services.sharing.look(secret_of(made)) == services.sharing.look("A" * 43)
        clock.forward(3600)
    assert services.sharing.look("A" * 43).outcome is Outcome.CLOSED


def test_an_expired_link_says_whom_to_ask_and_its_token_shows_nothing(services: Services, clock: FakeClock) -> None:
    made = make(services, days=1)
    clock.forward(86_400 - 60)
    token = opened(services, made).token
    before = seen(services, token)
    clock.forward(60)

    assert before == {("KN", STUDY)}
    assert seen(services, token) == set()
    assert opened(services, made).outcome is Outcome.GONE
    assert services.sharing.look(secret_of(made)).institution == "云岭示范县康宁医院（测试）"


def test_a_token_ends_before_its_link_does(services: Services, clock: FakeClock) -> None:
    token = opened(services, make(services)).token
    clock.forward(1800)

    assert services.sharing.actor_for(token) is None


def test_revoking_ends_the_link_and_its_tokens_at_once_and_no_other(services: Services) -> None:
    first, second = make(services), make(services)
    tokens = [opened(services, one).token for one in (first, second)]
    actor = services.sharing.actor_for(tokens[0])
    assert actor is not None
    services.sharing.revoke(ADMIN, IMAGING_STUDY, first.share.id)

    assert [seen(services, one) for one in tokens] == [set(), {("KN", STUDY)}]
    # Whoever had been let in before finds nothing either: the predicate itself asks.
    assert services.database.read(lambda tx: tx.imaging.studies(scope_of(actor), [], limit=9)) == []
    assert opened(services, first).outcome is Outcome.GONE
    assert opened(services, second).outcome is Outcome.OPENED


def test_a_link_is_revoked_by_its_institution_alone(services: Services) -> None:
    made = make(services)
    for actor in (
        Actor(institution="QH", roles=frozenset({"doctor"})),
        Actor(institution="KN", roles=frozenset({"nurse"})),
    ):
        with pytest.raises(HubError):
            services.sharing.revoke(actor, IMAGING_STUDY, made.share.id)
    with pytest.raises(HubError) as caught:
        services.sharing.revoke(DOCTOR, study_resource_id("KN", OTHERS), made.share.id)

    assert caught.value.category is Category.NOT_FOUND
    assert opened(services, made).outcome is Outcome.OPENED


def test_the_institution_sees_every_attempt_and_every_look(services: Services) -> None:
    made = make(services)
    opened(services, made, wrong(made), address="10.0.0.9")
    seen(services, opened(services, made).token)
    other = make(services)
    [*listed] = services.sharing.of_study(DOCTOR, IMAGING_STUDY)
    accesses = next(found for share, found in listed if share.id == made.share.id)

    assert {share.id for share, _ in listed} == {made.share.id, other.share.id}
    assert sorted((one["subtype"][0]["code"], one["outcome"]) for one in accesses) == [
        ("QIDO-RS", "0"),
        ("share-open", "0"),
        ("share-open", "4"),
    ]
    assert {one["agent"][0]["network"]["address"] for one in accesses if "network" in one["agent"][0]} == {
        "10.0.0.1",
        "10.0.0.9",
    }


def test_an_attempt_at_a_link_that_nobody_made_is_written_down_too(services: Services) -> None:
    services.sharing.open("A" * 43, "123456", address="10.0.0.7")

    [line] = [one for one in lines(services) if one["subtype"][0]["code"] == "share-open"]
    assert line["agent"][0]["network"]["address"] == "10.0.0.7"
    assert line["outcome"] == "4"


def test_nothing_that_is_kept_holds_a_secret_a_password_or_a_token(services: Services, tmp_path: Path) -> None:
    made = make(services, note="note")
    answer = opened(services, made)
    opened(services, made, "424242")
    services.sharing.revoke(DOCTOR, IMAGING_STUDY, made.share.id)
    services.close()

    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"note" in kept
    for secret in (secret_of(made), answer.token, answer.token.removeprefix("share.")):
        assert secret.encode() not in kept


def test_a_password_typed_on_a_chinese_keyboard_is_the_same(services: Services) -> None:
    made = make(services)
    wide = "".join(chr(ord(one) + 0xFEE0) for one in made.password)

    assert opened(services, made, f" {wide} ").outcome is Outcome.OPENED


@pytest.mark.parametrize("between", [" ", "\u3000", "\u00a0", "-"])
def test_a_password_typed_in_two_groups_is_the_same(services: Services, between: str) -> None:
    made = make(services)

    assert opened(services, made, f"{made.password[:3]}{between}{made.password[3:]}").outcome is Outcome.OPENED


def test_a_share_knows_when_it_is_open(services: Services, clock: FakeClock) -> None:
    share: Share = make(services, days=2).share

    assert share.open_at(clock())
    assert not share.open_at(clock() + timedelta(days=2))
