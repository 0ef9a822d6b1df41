"""The parts of de-identification: the table, what a key makes, and text."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, keyword_for_tag

from fhir_mappings.dicom.deidentify.keys import ProjectKey, shifted
from fhir_mappings.dicom.deidentify.table import OPTION_CODES, Action, Options, action, rows
from fhir_mappings.dicom.deidentify.text import identifiers
from fhir_mappings.dicom.scanner import valid_uid
from fhir_mappings.errors import MalformedError

KEY = ProjectKey(bytes(range(32)))
CT, SR, PET, ENHANCED_MR, ECG = (f"1.2.840.10008.5.1.4.1.1.{one}" for one in ("2", "88.11", "128", "4.1", "9.1.1"))


# --- the table


def test_every_row_is_an_attribute_of_the_dictionary_under_its_own_name() -> None:
    for tag, row in rows().items():
        assert set(row.options.values()) <= {"K", "C"}
        assert set(row.options) <= {"structured-content", *OPTION_CODES}
        keyword = "" if "X" in tag else keyword_for_tag(int(tag, 16))
        if keyword and dictionary_VR(int(tag, 16)) in {"DA", "TM", "DT"} and "full-dates" in row.options:
            assert row.options["modified-dates"] == "C"


def test_the_type_decides_where_the_table_leaves_a_choice_and_the_stricter_where_it_is_unknown() -> None:
    content_date, series_date, station = 0x00080023, 0x00080021, 0x00081010
    assert action(content_date, "DA", Options(), SR) is Action.D
    assert action(content_date, "DA", Options(), CT) is Action.Z
    assert action(series_date, "DA", Options(), PET) is Action.D
    assert action(series_date, "DA", Options(), CT) is Action.X
    assert action(station, "SH", Options(), "1.2.3") is Action.X
    serial, acquired, context = 0x00181000, 0x0008002A, 0x00400555
    assert action(content_date, "DA", Options(), ENHANCED_MR) is Action.D
    assert action(serial, "LO", Options(), ENHANCED_MR) is Action.D
    assert action(serial, "LO", Options(), CT) is Action.X
    assert action(content_date, "DA", Options(), ECG) is Action.D
    assert action(acquired, "DT", Options(), ECG) is Action.D
    assert [action(context, "SQ", Options(), one) for one in (ENHANCED_MR, ECG)] == [Action.Z, Action.Z]


def test_an_option_changes_the_rows_that_name_it() -> None:
    assert action(0x00100040, "CS", Options()) is Action.Z
    assert action(0x00100040, "CS", Options(patient=True)) is Action.K
    assert action(0x00081030, "LO", Options(descriptors=True)) is Action.C
    assert action(0x00080020, "DA", Options(modified_dates=True)) is Action.C
    assert action(0x00080018, "UI", Options(uids=True)) is Action.K


def test_what_no_row_names_is_kept_unless_it_is_a_person_a_moment_or_unknown() -> None:
    assert action(0x00280010, "US", Options()) is Action.K
    assert action(0x00404037 + 0x10000, "LO", Options()) is Action.X
    assert action(0x60003000, "OW", Options(graphics=True)) is Action.X
    assert action(0x50003000, "OW", Options()) is Action.X


def test_options_are_known_by_name_and_dates_have_one_way() -> None:
    assert Options.of(["full-dates", "patient"]).names() == ("full-dates", "patient")
    for wrong in (["full-dates", "modified-dates"], ["nonsense"]):
        with pytest.raises(MalformedError):
            Options.of(wrong)


# --- what a key makes


@given(st.text("0123456789.", min_size=1, max_size=64))
def test_a_uid_becomes_a_uid_of_a_uuid(uid: str) -> None:
    made = KEY.uid(uid)
    assert valid_uid(made)
    assert made.startswith("2.25.")
    assert made == KEY.uid(uid) != ProjectKey(bytes(32)).uid(uid)


@given(st.dates(date(1900, 1, 1), date(2100, 1, 1)), st.dates(date(1900, 1, 1), date(2100, 1, 1)))
def test_the_time_between_two_dates_stays(one: date, other: date) -> None:
    days = KEY.days("KN", "", "10086")
    assert -3650 <= days < 0

    def moved(day: date) -> date:
        return date.fromisoformat(shifted(f"{day:%Y%m%d}", days))

    assert moved(one) - moved(other) == one - other


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20250611", "20250601"),
        ("20250611093015.123+0800", "20250601093015.123+0800"),
        ("202506", "202505"),
        ("2025", "2024"),
        ("20250231", ""),
        ("nonsense", ""),
        ("2025+0800", ""),
        ("", ""),
    ],
)
def test_a_date_keeps_its_precision(text: str, expected: str) -> None:
    assert shifted(text, -10) == expected


def test_a_key_has_its_length() -> None:
    with pytest.raises(MalformedError):
        ProjectKey(b"short")


# --- text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("郑伟，男，胸部平扫", "***，男，胸部平扫"),
        ("Zheng Wei / ZHENGWEI / wei zheng", "*** / *** / ***"),
        ("KN10086号", "***号"),
        ("P10086 and 100867", "P*** and ***7"),
        ("检查于2025年6月11日 20250611 2025/6/11", "检查于*** *** ***"),
        ("电话 139-1234-5678，邮箱 a.b@example.com", "电话 ***，邮箱 ***"),
        ("审核医师：王小明 T1 3.5mm", "审核医师：*** T1 3.5mm"),
        ("窗宽 1500 窗位 -600", "窗宽 1500 窗位 -600"),
    ],
)
def test_free_text_loses_what_identifies_and_keeps_the_rest(text: str, expected: str) -> None:
    known = identifiers(names=["ZHENG^WEI=郑^伟"], values=["KN10086", "10086"], dates=["20250611"])
    assert known.cleaned(text, dates=True) == expected


def test_a_short_name_counts_as_a_whole_word_only() -> None:
    known = identifiers(names=["LI^NA"])
    assert known.cleaned("LI NA, liver, na+", dates=False) == "***, liver, ***+"


def test_a_name_in_han_is_found_in_pinyin() -> None:
    known = identifiers(names=["郑小伟"])
    assert known.cleaned("Zheng Xiaowei, ZHENGXIAOWEI, zheng xiao wei", dates=False) == "***, ***, ***"


def test_bytes_are_searched_in_both_charsets() -> None:
    known = identifiers(names=["ZHENG^WEI=郑^伟"])
    assert known.in_bytes("\0x郑伟".encode("gbk"))
    assert known.in_bytes("郑伟".encode())
    assert known.in_bytes(b"..Zheng..")
    assert not known.in_bytes(bytes(range(256)))
