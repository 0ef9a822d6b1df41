"""Personal names as HumanName."""

from __future__ import annotations

from fhir_mappings.names import human_name


def test_a_name_in_one_piece_is_not_split() -> None:
    assert human_name(text="欧阳明月") == {"text": "欧阳明月"}


def test_family_and_given_join_by_script() -> None:
    assert human_name(family="张", given=["伟"]) == {"text": "张伟", "family": "张", "given": ["伟"]}
    assert human_name(family="Smith", given=["John", "Q"]) == {
        "text": "John Q Smith",
        "family": "Smith",
        "given": ["John", "Q"],
    }


def test_printing_space_in_a_han_name_is_dropped_and_letters_keep_theirs() -> None:
    assert human_name(text="张　伟") == {"text": "张伟"}
    assert human_name(text="ZHANG  WEI") == {"text": "ZHANG WEI"}


def test_nothing_is_no_name() -> None:
    assert human_name(text="　 ", family="") is None
