"""FHIR search queries as typed values (https://hl7.org/fhir/R4/search.html)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_mappings.definitions.dates import range_us
from hub.errors import Category, HubError
from hub.search import (
    Chain,
    ChainTarget,
    Date,
    DateValue,
    Filter,
    Has,
    Ids,
    Include,
    Missing,
    NumberValue,
    Quantity,
    QuantityValue,
    Reference,
    ReferenceValue,
    Sort,
    String,
    StringValue,
    Token,
    TokenValue,
    Uri,
    parse,
)
from hub.search.values import split, unescape


def one(resource_type: str, name: str, value: str, **options: Any) -> Filter:
    """Return the only filter of a query of one parameter."""
    (found,) = parse(resource_type, [(name, value)], **options).filters
    return found


def refused(resource_type: str, *pairs: tuple[str, str], **options: Any) -> HubError:
    with pytest.raises(HubError) as caught:
        parse(resource_type, pairs, **options)
    return caught.value


# --- token -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("10086", [TokenValue(system=None, code="10086")]),
        ("urn:kn|10086", [TokenValue(system="urn:kn", code="10086")]),
        ("|10086", [TokenValue(system="", code="10086")]),
        ("urn:kn|", [TokenValue(system="urn:kn", code=None)]),
        ("a,urn:b|c", [TokenValue(system=None, code="a"), TokenValue(system="urn:b", code="c")]),
        (r"a\,b,c\|d,e\\,f\$", [TokenValue(system=None, code=c) for c in ("a,b", "c|d", "e\\", "f$")]),
    ],
)
def test_tokens_have_four_forms_and_escapes(text: str, values: list[TokenValue]) -> None:
    assert one("Patient", "identifier", text) == Token(param="identifier", values=tuple(values))


def test_token_modifiers() -> None:
    assert one("Patient", "gender:not", "male") == Token(
        param="gender", modifier="not", values=(TokenValue(system=None, code="male"),)
    )
    assert one("Observation", "code:text", "血 钾") == Token(
        param="code", modifier="text", values=(TokenValue(system=None, code="血钾"),)
    )
    assert one("Patient", "identifier:of-type", "urn:t|NI|990001") == Token(
        param="identifier", modifier="of-type", values=(TokenValue(system="urn:t", code="NI|990001"),)
    )


@pytest.mark.parametrize("name", ["gender", "birthdate", "organization", "name", "_tag", "_profile"])
def test_missing_goes_with_every_type(name: str) -> None:
    found = one("Patient", f"{name}:missing", "true")
    assert isinstance(found, Missing)
    assert (found.param, found.missing) == (name, True)
    assert one("Patient", f"{name}:missing", "false") != found


# --- string ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modifier", ["", "exact", "contains"])
def test_strings_are_folded_and_kept(modifier: str) -> None:
    name = f"name:{modifier}" if modifier else "name"
    found = one("Patient", name, "Ouyang Mingyue,欧阳")
    assert isinstance(found, String)
    assert found.modifier == modifier
    assert found.values == (
        StringValue(folded="ouyangmingyue", exact="Ouyang Mingyue"),
        StringValue(folded="欧阳", exact="欧阳"),
    )


def test_phonetic_reads_the_rows_of_name() -> None:
    assert one("Patient", "phonetic", "oymy") == one("Patient", "name", "oymy")


def test_a_string_that_folds_to_nothing_is_refused() -> None:
    assert refused("Patient", ("name", "···")).category is Category.INCORRECT


# --- reference -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("subject", "Patient/p1", ReferenceValue(target_type="Patient", target_id="p1")),
        ("subject", "p1", ReferenceValue(target_id="p1")),
        ("patient", "p1", ReferenceValue(target_type="Patient", target_id="p1")),
        ("subject:Device", "d1", ReferenceValue(target_type="Device", target_id="d1")),
        ("subject", "https://hub.example/fhir/Patient/p1", ReferenceValue(target_type="Patient", target_id="p1")),
        ("subject", "https://o.example/fhir/Patient/p1", ReferenceValue(url="https://o.example/fhir/Patient/p1")),
        (
            "subject",
            "https://hub.example/fhir-x/Patient/p1",
            ReferenceValue(url="https://hub.example/fhir-x/Patient/p1"),
        ),
        ("subject", "urn:uuid:1", ReferenceValue(url="urn:uuid:1")),
        ("subject:identifier", "urn:kn|10086", ReferenceValue(identifier=TokenValue(system="urn:kn", code="10086"))),
    ],
)
def test_references(name: str, text: str, value: ReferenceValue) -> None:
    found = one("Observation", name, text, base_urls=["https://hub.example/fhir/"])
    assert isinstance(found, Reference)
    assert found.values == (value,)


def test_a_reference_knows_which_types_it_may_point_at() -> None:
    found = one("Observation", "subject", "p1")
    assert isinstance(found, Reference)
    assert found.target_types == ("Device", "Group", "Location", "Patient")
    assert refused("Observation", ("subject", "Organization/o1")).category is Category.INCORRECT
    assert refused("Observation", ("subject:Organization", "o1")).category is Category.UNSUPPORTED
    assert refused("Observation", ("subject", "a/b/c")).category is Category.INCORRECT


# --- ordered ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "eq", "ne", "gt", "lt", "ge", "le", "sa", "eb"])
def test_dates_are_ranges_with_prefixes(prefix: str) -> None:
    low, high = range_us("2025-06")
    assert one("Observation", "date", f"{prefix}2025-06") == Date(
        param="date",
        values=(DateValue(prefix=prefix or "eq", low_us=low, high_us=high),),  # type: ignore[arg-type]
    )


def test_an_approximate_date_widens_by_a_tenth_of_its_age() -> None:
    low, high = range_us("2025-06-01")
    found = one("Observation", "date", "ap2025-06-01", now=datetime(2025, 6, 10, 16, tzinfo=UTC))
    day_us = 86_400_000_000
    assert found == Date(param="date", values=(DateValue(prefix="ap", low_us=low - day_us, high_us=high + day_us),))


def test_a_plus_sign_that_became_a_space_is_read() -> None:
    assert one("Observation", "date", "2025-06-11T09:30:00 08:00") == one(
        "Observation", "date", "2025-06-11T09:30:00+08:00"
    )


def test_last_updated_is_a_date() -> None:
    found = one("Patient", "_lastUpdated", "ge2025-06-11")
    assert isinstance(found, Date)
    assert found.param == "_lastUpdated"


@pytest.mark.parametrize(
    ("text", "prefix", "value", "low", "high"),
    [
        ("100", "eq", 100, 99.5, 100.5),
        ("100.00", "eq", 100, 99.995, 100.005),
        ("1e2", "eq", 100, 50, 150),
        ("5.40e-3", "eq", 0.0054, 0.005395, 0.005405),
        ("-5.4", "eq", -5.4, -5.45, -5.35),
        ("gt5.4", "gt", 5.4, 5.35, 5.45),
        ("ap100", "ap", 100, 90, 110),
        ("ap1", "ap", 1, 0.5, 1.5),
        ("0", "eq", 0, -0.5, 0.5),
    ],
)
def test_numbers_carry_their_implicit_range(text: str, prefix: Any, value: float, low: float, high: float) -> None:
    found = one("RiskAssessment", "probability", text)
    assert found.values == (NumberValue(prefix=prefix, value=value, low=low, high=high),)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "system", "code"),
    [
        ("5.4", None, None),
        ("5.4||mg", None, "mg"),
        ("5.4|http://unitsofmeasure.org|mg", "http://unitsofmeasure.org", "mg"),
        ("5.4|http://unitsofmeasure.org|", "http://unitsofmeasure.org", None),
    ],
)
def test_quantities_have_a_unit_or_not(text: str, system: str | None, code: str | None) -> None:
    value = QuantityValue(prefix="eq", value=5.4, low=5.35, high=5.45, system=system, code=code)
    assert one("Observation", "value-quantity", text) == Quantity(param="value-quantity", values=(value,))


def test_uris() -> None:
    assert one("ValueSet", "url:below", "http://x/a,http://x/b") == Uri(
        param="url", modifier="below", values=("http://x/a", "http://x/b")
    )


@pytest.mark.parametrize(
    ("resource_type", "name", "value"),
    [
        ("Observation", "date", "11/06/2025"),
        ("Observation", "date", "xx2025"),
        ("Observation", "date", "2025-02-30"),
        ("Observation", "value-quantity", "NaN"),
        ("Observation", "value-quantity", "5.4|mg"),
        ("Observation", "value-quantity", "1e999"),
        ("Observation", "value-quantity", "９"),
        ("Observation", "code", ""),
        ("Observation", "code", "a,"),
        ("Observation", "code", "|"),
        ("Observation", "code", "a|b|c"),
        ("Observation", "code", ",".join(["a"] * 101)),
        ("Observation", "code", "a" * 8_193),
        ("Observation", "code:missing", "yes"),
        ("Observation", "_id", "a b"),
        ("Observation", "_id:missing", "true"),
        ("Patient", "identifier:of-type", "a|b"),
        ("Patient", "_count", "-1"),
        ("Patient", "_count", "many"),
        ("Patient", "_total", "some"),
        ("Patient", "_summary", "yes"),
        ("Patient", "_elements", "colour"),
        ("Patient", "_sort", "colour"),
        ("Patient", "_sort", ",".join(["name"] * 9)),
        ("Patient", "_offset", "1000001"),
        ("Patient", "_cursor", ""),
        ("Patient", "_include", "Patient"),
        ("Patient", "_include", "Observation:subject"),
        ("Patient", "_include", "Patient:colour"),
        ("Patient", "_include", "Patient:gender"),
        ("Patient", "_revinclude", "Observation:encounter"),
        ("Patient", "_has:Observation:encounter:code", "x"),
        ("Observation", "code.name", "x"),
        ("Observation", "subject:Krankenhaus.name", "x"),
        ("Observation", "focus.name", "x"),
    ],
)
def test_what_is_wrong_is_incorrect_and_named(resource_type: str, name: str, value: str) -> None:
    error = refused(resource_type, (name, value))
    assert error.category is Category.INCORRECT
    assert name.partition(":")[0] in error.where


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name:fuzzy", "x"),
        ("birthdate:exact", "2025"),
        ("_id:not", "x"),
        ("_include:iterate", "Patient:organization"),
        ("_revinclude:iterate", "Observation:patient"),
        ("organization.partof.name", "x"),
        ("_has:Observation:patient:_has:Provenance:target:agent", "x"),
    ],
)
def test_what_the_hub_does_not_do_is_refused_even_in_lenient_handling(name: str, value: str) -> None:
    for lenient in (False, True):
        error = refused("Patient", (name, value), lenient=lenient)
        assert (error.category, error.status) == (Category.UNSUPPORTED, 400)


@pytest.mark.parametrize(
    "name", ["colour", "_text", "_content", "_filter", "organization.colour", "_has:Observation:colour:code"]
)
def test_unknown_parameters_are_refused_or_reported(name: str) -> None:
    error = refused("Patient", (name, "x"))
    assert "Supported:" in error.remedy
    query = parse("Patient", [(name, "x"), ("gender", "male")], lenient=True)
    assert query.ignored == (name,)
    assert [name for name, _ in query.pairs] == ["gender"]


def test_messages_do_not_repeat_values() -> None:
    secret = "990001199006062488"
    for pair in [
        ("birthdate", secret),
        ("organization", f"x/{secret}/y"),
        (f"{secret}<b>", "x"),
        ("_sort", f"{secret}<"),
    ]:
        assert secret not in repr(vars(refused("Patient", pair)))


# --- chains, includes, controls --------------------------------------------------------------------------------------


def test_a_chain_asks_every_type_that_knows_the_parameter() -> None:
    names = (StringValue(folded="oymy", exact="oymy"),)
    assert one("Observation", "patient.name", "oymy") == Chain(
        param="patient", targets=(ChainTarget(resource_type="Patient", filter=String(param="name", values=names)),)
    )
    found = one("Observation", "subject.name", "oymy")
    assert isinstance(found, Chain)
    assert [target.resource_type for target in found.targets] == ["Location", "Patient"]
    found = one("Observation", "subject:Location.name:exact", "CT")
    assert isinstance(found, Chain)
    assert [target.resource_type for target in found.targets] == ["Location"]


def test_has_looks_from_the_other_side() -> None:
    assert one("Patient", "_has:Observation:patient:code", "2823-3") == Has(
        resource_type="Observation",
        param="patient",
        filter=Token(param="code", values=(TokenValue(system=None, code="2823-3"),)),
    )
    assert isinstance(one("Patient", "_has:Task:patient:status:not", "draft"), Has)


def test_includes() -> None:
    query = parse(
        "Task",
        [
            ("_include", "Task:focus"),
            ("_include", "Task:patient:Patient"),
            ("_include", "*"),
            ("_include", "Task:focus"),
            ("_revinclude", "Provenance:target"),
        ],
    )
    assert query.includes == (
        Include(source_type="Task", param="focus"),
        Include(source_type="Task", param="patient", target_type="Patient"),
        Include(source_type="Task", param="*"),
        Include(source_type="Provenance", param="target", reverse=True),
    )


def test_repeats_are_and_commas_are_or() -> None:
    query = parse("Patient", [("name", "欧阳"), ("name", "明月"), ("_id", "a,b,a")])
    assert [type(item) for item in query.filters] == [String, String, Ids]
    assert query.filters[2] == Ids(values=("a", "b"))


def test_controls() -> None:
    query = parse(
        "Observation",
        [
            ("_sort", "-date,_id"),
            ("_count", "20"),
            ("_total", "accurate"),
            ("_elements", "code,value"),
            ("_offset", "40"),
            ("_format", "json"),
        ],
    )
    assert query.sort == (Sort(param="date", kind="date", descending=True), Sort(param="_id", kind="token"))
    assert (query.count, query.total, query.elements, query.offset) == (20, "accurate", ("code", "value"), 40)
    assert "_format" not in dict(query.pairs)


def test_defaults() -> None:
    query = parse("Patient", [])
    assert (query.count, query.total, query.sort, query.filters, query.summary) == (50, "none", (), (), None)


def test_summary_count_asks_for_no_rows() -> None:
    assert parse("Patient", [("_summary", "count"), ("_count", "10")]).count == 0


def test_a_page_larger_than_the_limit_is_cut_and_says_so() -> None:
    query = parse("Patient", [("_count", "100000")])
    assert query.count == 500
    assert query.to_self_link() == "Patient?_count=500"


def test_a_control_given_twice_is_refused() -> None:
    assert refused("Patient", ("_count", "1"), ("_count", "2")).category is Category.INCORRECT


def test_cursor_and_offset_exclude_each_other() -> None:
    assert parse("Patient", [("_cursor", "abc")]).cursor == "abc"
    assert refused("Patient", ("_cursor", "abc"), ("_offset", "1")).category is Category.INCORRECT


def test_the_number_of_parameters_is_bounded() -> None:
    assert refused("Patient", *[("name", "x")] * 51).category is Category.INCORRECT


def test_an_unknown_type_is_refused() -> None:
    assert refused("Krankenhaus").status == 404


def test_the_next_link_replaces_the_place() -> None:
    query = parse("Patient", [("name", "欧阳"), ("_offset", "50")])
    assert query.to_self_link("https://hub.example/fhir/", cursor="c2") == (
        "https://hub.example/fhir/Patient?name=%E6%AC%A7%E9%98%B3&_cursor=c2"
    )


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(
    lambda text: text.strip() == text
)


@given(st.lists(TEXT, min_size=1, max_size=5), TEXT)
def test_the_self_link_asks_the_same_again(codes: list[str], system: str) -> None:
    def escape(text: str) -> str:
        return text.replace("\\", "\\\\").replace(",", "\\,").replace("|", "\\|").replace("$", "\\$")

    value = ",".join(f"{escape(system)}|{escape(code)}" for code in codes)
    query = parse("Patient", [("identifier", value)])
    assert query.filters == (
        Token(param="identifier", values=tuple(TokenValue(system=system, code=code) for code in codes)),
    )
    link = query.to_self_link("https://hub.example/fhir")
    assert parse("Patient", parse_qsl(urlsplit(link).query)) == query


@given(st.text(max_size=40))
def test_splitting_never_fails_and_loses_nothing(text: str) -> None:
    assert ",".join(split(text, ",")) == text
    unescape(text)


@given(
    st.sampled_from(["Patient", "Observation", "Task", "ImagingStudy"]),
    st.lists(
        st.tuples(
            st.text("abcdefghijklmnopqrstuvwxyz_:.-", max_size=20)
            | st.sampled_from(
                ["name", "subject.name", "_has:Observation:patient:code", "date", "_sort", "_include", "identifier"]
            ),
            st.text(max_size=30),
        ),
        max_size=4,
    ),
    st.booleans(),
)
def test_whatever_arrives_is_a_query_or_a_hub_error(
    resource_type: str, pairs: list[tuple[str, str]], lenient: bool
) -> None:
    try:
        parse(resource_type, pairs, lenient=lenient).to_self_link()
    except HubError:
        pass
