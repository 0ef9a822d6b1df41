"""Links between patients of different institutions: who makes them, what they find, and that they show nothing."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fhir_mappings.identifiers import HEALTH_CARD, RESIDENT_ID, naming_system
from hub.access import UNRESTRICTED, Scope
from hub.actor import Actor
from hub.boot import Services
from hub.errors import Category, HubError
from hub.imaging_ids import number_record_id
from hub.ports import Database, Grant, NewVersion
from hub.query import PATIENT_ROOT, STUDY_ROOT, Model, read_identifier, tag_of
from hub.query_search import Search
from hub.retrieval import select
from tests.support.images import KN, QH, ROOT, YL, FakeClock, ct, envelope, receive, resources, settle
from tests.support.services import running
from tests.support.v2 import V2Hub, adt

OPERATOR = Actor(institution="YY", roles=frozenset({"operator"}), client="ops")
#: Passes the check of GB 11643, in a region that does not exist.
RESIDENT = "990101197602290010"
OTHERS, ISSUER = tag_of("OtherPatientIDsSequence"), tag_of("IssuerOfPatientID")


def desk(institution: str) -> Actor:
    return Actor(institution=institution, roles=frozenset({"desk"}), client=f"{institution}-desk")


def record(institution: str, number: str) -> str:
    return number_record_id(institution, number)


def register(services: Services, institution: str, number: str, **more: Any) -> None:
    """Store the Patient of *number* as a message of *institution* would, and let the hub look for the same elsewhere."""
    patient: dict[str, Any] = {
        "resourceType": "Patient",
        "id": record(institution, number),
        **more,
    }
    own = {"system": naming_system(institution, "patient-id"), "value": number}
    patient["identifier"] = [own, *more.get("identifier", ())]

    def work(tx: Any) -> None:
        tx.records.put_many([NewVersion(resource=patient, owner=institution)])
        services.identity.suggest(tx, [f"Patient/{patient['id']}"], owner=institution)

    services.database.write(work)


def merge(services: Services, institution: str, dead: str, survivor: str) -> None:
    link = {"other": {"reference": f"Patient/{record(institution, survivor)}"}, "type": "replaced-by"}
    register(services, institution, dead, link=[link])


def lend(services: Services, study: str, owner: str, grantee: str) -> None:
    """Open a grant on one study."""

    def work(tx: Any) -> None:
        rows = tx.imaging.studies(Scope(institution=owner), [], limit=1000, owner=owner)
        [id_] = [row["resource_id"] for row in rows if row["StudyInstanceUID"] == study]
        tx.grants.open(
            Grant(grantee=grantee, target_type="ImagingStudy", target_id=id_, task_id=f"t-{study}"),
            now=services.clock(),
        )

    services.database.write(work)


def link(services: Services, one: tuple[str, str], other: tuple[str, str], *, same: bool = True) -> None:
    """Let the desks of both institutions say the same, or one of them take it back."""
    for (institution, number), (there, theirs) in ((one, other), (other, one)) if same else ((one, other),):
        services.identity.state(desk(institution), record(institution, number), there, theirs, same=same)


def found(services: Services, actor: Actor, **keys: str) -> set[str]:
    return {row["StudyInstanceUID"] for row in services.imaging.find(actor, "study", list(keys.items())).rows}


def asked(
    services: Services, actor: Actor, level: str = "STUDY", model: Model = STUDY_ROOT, **keys: str
) -> list[dict[str, Any]]:
    """Return what C-FIND answers, by keyword: values as they stand."""
    wanted = {"QueryRetrieveLevel": level, "PatientID": "", "StudyInstanceUID": "", **keys}
    if level == "PATIENT":
        del wanted["StudyInstanceUID"]
    identifier = {
        tag_of(name): {"vr": "CS" if name == "QueryRetrieveLevel" else "LO", "Value": [value] if value else []}
        for name, value in wanted.items()
    }
    search = Search(services=services, actor=actor, asked=read_identifier(identifier, model, relational=True))
    return [answer for page in search.pages() for answer in page]


def one(answer: dict[str, Any], keyword: str) -> Any:
    return (answer.get(tag_of(keyword), {}).get("Value") or [None])[0]


def suggestions(services: Services) -> list[dict[str, Any]]:
    return [item for item in services.identity.listed(OPERATOR) if item["state"] == "open"]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def hub(tmp_path: Path, database_url: str, clock: FakeClock) -> Iterator[Services]:
    """郑伟 is 10086 at KN and 500 at YL; KN has lent YL one of his two studies, and one of somebody else's."""
    with running(tmp_path / "data", clock=clock, url=database_url) as services:
        for number, (study, patient_id) in enumerate((("1", "10086"), ("2", "10086"), ("3", "20001"))):
            receive(services, ct(study=f"{ROOT}.{study}", PatientID=patient_id, AccessionNumber=f"A{number}"))
        receive(services, ct(study=f"{ROOT}.9", PatientID="500"), actor=YL)
        clock.forward(600)
        settle(services)
        for institution, number in (("KN", "10086"), ("KN", "20001"), ("YL", "500"), ("QH", "10086")):
            register(services, institution, number)
        lend(services, f"{ROOT}.1", "KN", "YL")
        lend(services, f"{ROOT}.3", "KN", "YL")
        yield services


def test_the_askers_number_finds_what_is_granted_of_the_linked_patient_and_nothing_else(hub: Services) -> None:
    assert found(hub, YL, PatientID="500") == {f"{ROOT}.9"}
    link(hub, ("KN", "10086"), ("YL", "500"))
    assert found(hub, YL, PatientID="500") == {f"{ROOT}.9", f"{ROOT}.1"}
    # The other side was granted nothing, and the link alone shows nothing.
    assert found(hub, KN, PatientID="10086") == {f"{ROOT}.1", f"{ROOT}.2"}
    assert found(hub, KN) == {f"{ROOT}.1", f"{ROOT}.2", f"{ROOT}.3"}


def test_an_answer_carries_the_askers_number_and_names_the_sources(hub: Services) -> None:
    link(hub, ("KN", "10086"), ("YL", "500"))
    answers = {one(answer, "StudyInstanceUID"): answer for answer in asked(hub, YL, AccessionNumber="")}
    linked = answers[f"{ROOT}.1"]
    assert (one(linked, "PatientID"), one(linked, "IssuerOfPatientID")) == ("500", "YL")
    [source] = linked[OTHERS]["Value"]
    assert (one(source, "PatientID"), one(source, "IssuerOfPatientID")) == ("10086", "KN")
    assert one(linked, "AccessionNumber") == "A0"
    assert one(one(linked, "IssuerOfAccessionNumberSequence"), "LocalNamespaceEntityID") == "KN"
    # A grant without a link shows the owner's number with its issuer.
    lent = answers[f"{ROOT}.3"]
    assert (one(lent, "PatientID"), one(lent, "IssuerOfPatientID"), lent.get(OTHERS)) == ("20001", "KN", None)
    assert OTHERS not in answers[f"{ROOT}.9"]


def test_an_answer_does_not_contradict_its_question(hub: Services) -> None:
    link(hub, ("KN", "10086"), ("YL", "500"))
    for keys in (
        {"PatientID": "10086"},
        {"PatientID": "100*"},
        {"IssuerOfPatientID": "KN", "StudyInstanceUID": f"{ROOT}.1"},
    ):
        [answer] = asked(hub, YL, **keys)
        assert (one(answer, "PatientID"), OTHERS in answer) == ("10086", False)
    answers = asked(hub, YL, PatientID="500", IssuerOfPatientID="YL")
    assert {one(answer, "StudyInstanceUID") for answer in answers} == {f"{ROOT}.1", f"{ROOT}.9"}
    assert {one(answer, "PatientID") for answer in answers} == {"500"}
    assert asked(hub, YL, PatientID="500", IssuerOfPatientID="KN") == []


def test_linked_patients_answer_as_one_at_the_patient_level(hub: Services) -> None:
    keys = {"NumberOfPatientRelatedStudies": "", "NumberOfPatientRelatedInstances": ""}
    before = {one(answer, "PatientID") for answer in asked(hub, YL, "PATIENT", PATIENT_ROOT, **keys)}
    assert before == {"500", "10086", "20001"}
    link(hub, ("KN", "10086"), ("YL", "500"))
    for number in ("", "500"):
        answers = asked(hub, YL, "PATIENT", PATIENT_ROOT, **{**keys, "PatientID": number})
        counts = {one(answer, "PatientID"): one(answer, "NumberOfPatientRelatedStudies") for answer in answers}
        assert counts == ({"500": 2, "20001": 1} if not number else {"500": 2})
    [answer] = asked(hub, YL, "PATIENT", PATIENT_ROOT, **{**keys, "PatientID": "10086"})
    assert (one(answer, "PatientID"), one(answer, "NumberOfPatientRelatedStudies")) == ("10086", 1)
    counts = {one(answer, "NumberOfPatientRelatedStudies") for answer in asked(hub, YL, PatientID="500", **keys)}
    assert counts == {2}


def test_a_patient_without_studies_of_the_askers_own_answers_under_the_askers_number(hub: Services) -> None:
    register(hub, "YL", "600")
    link(hub, ("KN", "20001"), ("YL", "600"))
    for number in ("600", ""):
        answers = asked(hub, YL, "PATIENT", PATIENT_ROOT, PatientID=number, NumberOfPatientRelatedStudies="")
        numbers = {one(answer, "PatientID"): one(answer, "NumberOfPatientRelatedStudies") for answer in answers}
        assert numbers["600"] == 1
        assert "20001" not in numbers


def test_series_and_images_of_the_linked_patient_are_found_by_the_askers_number(hub: Services) -> None:
    link(hub, ("KN", "10086"), ("YL", "500"))
    for level in ("SERIES", "IMAGE"):
        answers = asked(hub, YL, level, PatientID="500", SeriesInstanceUID="", IssuerOfPatientID="")
        assert {(one(answer, "StudyInstanceUID"), one(answer, "PatientID")) for answer in answers} == {
            (f"{ROOT}.1", "500"), (f"{ROOT}.9", "500")
        }  # fmt: skip


def test_unlinking_restores_everything_and_the_history_stays(hub: Services) -> None:
    sources = resources(hub, "Patient")
    before = (found(hub, YL, PatientID="500"), asked(hub, YL))
    link(hub, ("KN", "10086"), ("YL", "500"))
    assert (found(hub, YL, PatientID="500"), asked(hub, YL)) != before
    link(hub, ("YL", "500"), ("KN", "10086"), same=False)
    assert (found(hub, YL, PatientID="500"), asked(hub, YL)) == before
    assert resources(hub, "Patient") == sources
    history = hub.database.read(lambda tx: tx.records.history("Linkage", None, UNRESTRICTED, count=10))
    assert [version.method for version in history] == ["DELETE", "PUT"]
    # One desk alone makes no link again; both do.
    hub.identity.state(desk("KN"), record("KN", "10086"), "YL", "500")
    assert found(hub, YL, PatientID="500") == before[0]
    hub.identity.state(desk("YL"), record("YL", "500"), "KN", "10086")
    assert found(hub, YL, PatientID="500") == {f"{ROOT}.9", f"{ROOT}.1"}


def test_merges_at_either_institution_carry_the_link_along_and_back(hub: Services) -> None:
    link(hub, ("KN", "10086"), ("YL", "500"))
    register(hub, "YL", "700")
    merge(hub, "YL", "500", "700")
    merge(hub, "KN", "20001", "10086")
    assert found(hub, YL, PatientID="700") == {f"{ROOT}.9", f"{ROOT}.1", f"{ROOT}.3"}
    [answer] = asked(hub, YL, StudyInstanceUID=f"{ROOT}.3")
    assert one(answer, "PatientID") == "700"
    register(hub, "KN", "20001")
    assert found(hub, YL, PatientID="700") == {f"{ROOT}.9", f"{ROOT}.1"}


def test_a_dead_number_that_was_linked_still_finds_what_came_under_it(hub: Services) -> None:
    link(hub, ("KN", "10086"), ("YL", "500"))
    register(hub, "YL", "700")
    merge(hub, "YL", "500", "700")
    assert found(hub, YL, PatientID="500") == {f"{ROOT}.9", f"{ROOT}.1"}
    assert {one(answer, "PatientID") for answer in asked(hub, YL, PatientID="500")} == {"500"}


def test_one_that_is_two_of_the_askers_keeps_the_sources_number_until_the_question_tells(hub: Services) -> None:
    register(hub, "YL", "600")
    link(hub, ("KN", "10086"), ("YL", "500"))
    link(hub, ("KN", "10086"), ("YL", "600"))
    [answer] = asked(hub, YL, StudyInstanceUID=f"{ROOT}.1")
    assert (one(answer, "PatientID"), one(answer, "IssuerOfPatientID")) == ("10086", "KN")
    [answer] = asked(hub, YL, PatientID="600")
    assert (one(answer, "PatientID"), one(answer, "StudyInstanceUID")) == ("600", f"{ROOT}.1")


def test_links_are_not_joined_to_chains(hub: Services) -> None:
    link(hub, ("YL", "500"), ("QH", "10086"))
    link(hub, ("QH", "10086"), ("KN", "10086"))
    assert found(hub, YL, PatientID="500") == {f"{ROOT}.9"}


def test_two_institutions_with_the_same_number_stay_two_patients(hub: Services) -> None:
    receive(hub, ct(study=f"{ROOT}.7"), actor=QH)
    link(hub, ("KN", "10086"), ("YL", "500"))
    assert found(hub, QH, PatientID="10086") == {f"{ROOT}.7"}
    assert found(hub, KN, PatientID="10086") == {f"{ROOT}.1", f"{ROOT}.2"}


def retrieved(hub: Services, actor: Actor, **keys: str) -> set[str]:
    asked_for = {name: [value] for name, value in keys.items()}
    chosen = select(hub, envelope(hub, actor, kind="C-GET"), "PATIENT", asked_for)
    # SOP Instance UIDs of these images are <study>.<series>.<number>.
    return {item.SOPInstanceUID.rsplit(".", 2)[0] for item in chosen.items}


def test_a_retrieval_of_the_patient_brings_the_linked_studies_and_nobody_elses(hub: Services) -> None:
    # KN has a patient of YL's number too, who is somebody else.
    receive(hub, ct(study=f"{ROOT}.4", PatientID="500"))
    lend(hub, f"{ROOT}.4", "KN", "YL")
    register(hub, "YL", "600")
    assert retrieved(hub, YL, PatientID="500") == {f"{ROOT}.9"}
    link(hub, ("KN", "10086"), ("YL", "500"))
    link(hub, ("KN", "20001"), ("YL", "600"))
    assert retrieved(hub, YL, PatientID="500") == {f"{ROOT}.9", f"{ROOT}.1"}
    assert retrieved(hub, YL, PatientID="500", IssuerOfPatientID="YL") == {f"{ROOT}.9", f"{ROOT}.1"}
    assert retrieved(hub, YL, PatientID="500", IssuerOfPatientID="KN") == {f"{ROOT}.4"}
    assert retrieved(hub, YL, PatientID="600") == {f"{ROOT}.3"}
    assert retrieved(hub, YL, PatientID="10086") == {f"{ROOT}.1"}


# --- who links ---------------------------------------------------------------------------------------------------


def test_what_one_desk_says_links_nothing_and_is_answered_alike_whether_the_other_is_known(hub: Services) -> None:
    for number in ("500", "does-not-exist"):
        assert hub.identity.state(desk("KN"), record("KN", "10086"), "YL", number) is None  # type: ignore[func-returns-value]
    assert found(hub, YL, PatientID="500") == {f"{ROOT}.9"}
    assert resources(hub, "Linkage") == []


@pytest.mark.parametrize(
    ("actor", "patient", "institution", "category"),
    [
        (Actor(institution="KN"), record("KN", "10086"), "YL", Category.FORBIDDEN),
        (YL, record("YL", "500"), "KN", Category.FORBIDDEN),
        (desk("KN"), record("YL", "500"), "YL", Category.NOT_FOUND),
        (desk("KN"), "nobody", "YL", Category.NOT_FOUND),
        (desk("KN"), record("KN", "10086"), "KN", Category.INCORRECT),
        (desk("KN"), record("KN", "10086"), "XX", Category.INCORRECT),
    ],
)
def test_only_a_desk_speaks_and_only_of_its_own_patient(
    hub: Services, actor: Actor, patient: str, institution: str, category: Category
) -> None:
    with pytest.raises(HubError) as caught:
        hub.identity.state(actor, patient, institution, "500")
    assert caught.value.category is category


def test_a_linkage_that_a_member_writes_says_nothing(hub: Services) -> None:
    items = [
        {"type": "source", "resource": {"reference": f"Patient/{record('YL', '500')}"}},
        {"type": "alternate", "resource": {"reference": f"Patient/{record('KN', '10086')}"}},
    ]
    linkage = {"resourceType": "Linkage", "id": "mine", "active": True, "item": items}
    hub.database.write(lambda tx: tx.records.put_many([NewVersion(resource=linkage, owner="YL")]))
    assert found(hub, YL, PatientID="500") == {f"{ROOT}.9"}


def test_nobody_but_the_hub_reads_links_and_their_work_items(hub: Services) -> None:
    link(hub, ("KN", "10086"), ("YL", "500"))
    for institution in ("KN", "YL"):
        scope = Scope(institution=institution)
        for type_ in ("Linkage", "Task"):
            seen = hub.database.read(lambda tx, t=type_, s=scope: tx.records.history(t, None, s, count=10))
            assert [stored.id for stored in seen if b"patient-link" in stored.body or type_ == "Linkage"] == []
        events = hub.database.read(lambda tx, i=institution: tx.audit.search({}, institution=i, limit=100, before=None))
        text = str([event for event in events if "patient-link" in str(event)])
        assert "patient-link" in text
        assert record("YL" if institution == "KN" else "KN", "500" if institution == "KN" else "10086") not in text
    with pytest.raises(HubError) as caught:
        hub.identity.listed(Actor(institution="KN", roles=frozenset({"admin"})))
    assert caught.value.category is Category.FORBIDDEN


# --- suggestions -------------------------------------------------------------------------------------------------

ZHENG = {"name": [{"text": "郑伟"}], "birthDate": "1976-02-29"}


def with_id(number: str = RESIDENT, **more: Any) -> dict[str, Any]:
    return {**ZHENG, "identifier": [{"system": RESIDENT_ID, "value": number}], **more}


@pytest.mark.parametrize(
    ("mine", "theirs", "evidence"),
    [
        (with_id(), with_id(), ["resident-id"]),
        (with_id(), with_id(name=[{"family": "Zheng", "given": ["Wei"]}]), ["resident-id"]),
        (with_id(), with_id(name=[{"text": "李四"}]), None),
        (with_id(), with_id(birthDate="1976-02-28"), None),
        (with_id("990101197602290019"), with_id("990101197602290019"), None),
        (ZHENG, ZHENG, None),
        (
            {"identifier": [{"system": HEALTH_CARD, "value": "H1"}]},
            {"identifier": [{"system": HEALTH_CARD, "value": "H1"}]},
            ["health-card"],
        ),
        (
            {"identifier": [{"system": HEALTH_CARD, "value": "H1"}], "birthDate": "1976-02-29"},
            {"identifier": [{"system": HEALTH_CARD, "value": "H1"}], "birthDate": "1980-01-01"},
            None,
        ),
    ],
)
def test_only_strong_identifiers_that_agree_suggest_a_link(
    hub: Services, mine: dict[str, Any], theirs: dict[str, Any], evidence: list[str] | None
) -> None:
    register(hub, "KN", "10086", **mine)
    register(hub, "YL", "500", **theirs)
    assert [item["evidence"] for item in suggestions(hub)] == ([evidence] if evidence else [])
    # However strong, it is a person who links.
    assert resources(hub, "Linkage") == []


def test_a_suggestion_holds_ids_and_no_data_of_the_patient(hub: Services) -> None:
    register(hub, "KN", "10086", **with_id())
    register(hub, "YL", "500", **with_id())
    [task] = [one for one in resources(hub, "Task") if one["code"]["coding"][0]["code"] == "patient-link"]
    for text in (RESIDENT, "郑伟", "1976-02-29", "10086"):
        assert text not in str(task)
    assert "for" not in task
    [item] = suggestions(hub)
    assert {side["institution"] for side in item["patients"]} == {"KN", "YL"}


def test_the_operator_links_a_suggestion_and_ends_it(hub: Services) -> None:
    register(hub, "KN", "10086", **with_id())
    register(hub, "YL", "500", **with_id())
    task = suggestions(hub)[0]["task"].removeprefix("Task/")
    for actor in (desk("KN"), Actor(institution="YL", roles=frozenset({"admin", "operator"}))):
        with pytest.raises(HubError) as caught:
            hub.identity.settle(actor, task, "link")
        assert caught.value.category is Category.NOT_FOUND
    hub.identity.settle(OPERATOR, task, "link")
    assert found(hub, YL, PatientID="500") == {f"{ROOT}.9", f"{ROOT}.1"}
    hub.identity.settle(OPERATOR, task, "unlink")
    assert found(hub, YL, PatientID="500") == {f"{ROOT}.9"}
    with pytest.raises(HubError) as caught:
        hub.identity.settle(OPERATOR, task, "unlink")
    assert caught.value.category is Category.CONFLICT
    assert [item["state"] for item in hub.identity.listed(OPERATOR)] == ["unlinked"]


def test_a_pair_that_was_refused_is_not_suggested_again_nor_under_a_merged_number(hub: Services) -> None:
    register(hub, "KN", "10086", **with_id())
    register(hub, "YL", "500", **with_id())
    hub.identity.settle(OPERATOR, suggestions(hub)[0]["task"].removeprefix("Task/"), "refuse")
    register(hub, "KN", "10086", **with_id(gender="male"))
    assert suggestions(hub) == []
    merge(hub, "KN", "10086", "30001")
    register(hub, "KN", "30001", **with_id())
    assert suggestions(hub) == []


def test_the_same_person_twice_at_one_institution_is_no_suggestion(hub: Services) -> None:
    register(hub, "KN", "10086", **with_id())
    register(hub, "KN", "20001", **with_id())
    assert suggestions(hub) == []


def test_a_number_of_15_digits_meets_its_18(hub: Services) -> None:
    old = RESIDENT[:6] + RESIDENT[8:17]
    register(hub, "KN", "10086", **with_id())
    register(hub, "YL", "500", **with_id(old))
    assert len(suggestions(hub)) == 1


def test_a_patient_of_a_message_is_held_against_those_of_other_institutions(sqlite_database: Database) -> None:
    hub = V2Hub(sqlite_database)
    mine = {"resourceType": "Patient", "id": "p", **with_id()}
    hub.database.write(lambda tx: tx.records.put_many([NewVersion(resource=mine, owner="YL")]))
    # PID-19 is where the number of the identity card stands in China.
    message = adt("A01", "1", phone=f"12000000001||||||{RESIDENT}")
    assert RESIDENT in message
    assert hub.code(message) == "AA"
    assert [item["evidence"] for item in suggestions(hub.services)] == [["resident-id"]]


# --- the rule that never bends -----------------------------------------------------------------------------------

_SIDES = [(institution, number) for institution in ("KN", "QH", "YL") for number in ("1", "2")]
_PAIRS = [(a, b) for a in _SIDES for b in _SIDES if a[0] < b[0]]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    links=st.lists(st.sampled_from(_PAIRS), unique=True, max_size=6),
    grants=st.lists(st.tuples(st.sampled_from(range(6)), st.sampled_from(("KN", "QH", "YL"))), unique=True, max_size=8),
)
def test_links_never_change_what_is_visible(
    sqlite_template: Path, links: list[Any], grants: list[tuple[int, str]]
) -> None:
    """What an asker sees is its own and what is granted; links change numbers and what a number finds inside that."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(sqlite_template, Path(folder, "hub.db"))
        clock = FakeClock()
        with running(Path(folder, "data"), clock=clock, url=f"sqlite:///{folder}/hub.db") as hub:
            actors = {"KN": KN, "QH": QH, "YL": YL}
            studies = {f"{ROOT}.{at}": side for at, side in enumerate(_SIDES, 1)}
            for study, (institution, number) in studies.items():
                receive(hub, ct(study=study, PatientID=number), actor=actors[institution])
                register(hub, institution, number)
            clock.forward(600)
            settle(hub)
            for at, grantee in grants:
                if _SIDES[at][0] != grantee:
                    lend(hub, f"{ROOT}.{at + 1}", _SIDES[at][0], grantee)
            visible = {
                code: {study for study, (owner, _) in studies.items() if owner == code}
                | {f"{ROOT}.{at + 1}" for at, grantee in grants if grantee == code}
                for code in actors
            }
            for one_side, other in links:
                link(hub, one_side, other)
            for code, actor in actors.items():
                assert found(hub, actor) == visible[code]
                assert {one(answer, "StudyInstanceUID") for answer in asked(hub, actor)} == visible[code]
                for number in ("1", "2"):
                    ours = {a if b == (code, number) else b for a, b in links if (code, number) in {a, b}}
                    meant = {study for study in visible[code] if studies[study] in ours or studies[study][1] == number}
                    assert found(hub, actor, PatientID=number) == meant
