"""What a file is, its root element says: documents of every character set, whole or not, and nothing that only holds one."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.folder.documents import is_document

SAMPLES = sorted((Path(__file__).parents[3] / "sample_data" / "cda").rglob("*.xml"))
BARE = '<ClinicalDocument xmlns="urn:hl7-org:v3"/>'


@pytest.mark.parametrize("path", SAMPLES, ids=lambda one: one.stem)
def test_the_samples_are_documents_and_so_are_their_beginnings(path: Path) -> None:
    data = path.read_bytes()
    assert is_document(data)
    assert is_document(data[: len(data) // 2])


@pytest.mark.parametrize(
    "text",
    [
        BARE,
        f"\r\n {BARE}",
        f'<?xml version="1.0" encoding="GB18030"?><?xml-stylesheet href="a.xsl"?>\n<!-- <other> -->{BARE}',
        f'<!DOCTYPE x [<!ENTITY a "b">]>{BARE}',
        '<v3:ClinicalDocument xmlns:v3="urn:hl7-org:v3">',
    ],
)
@pytest.mark.parametrize("charset", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gb18030"])
def test_what_stands_before_the_root_does_not_hide_it(text: str, charset: str) -> None:
    assert is_document(text.encode(charset))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "MSH|^~\\&|HIS|KNYY\r",
        f"<MDM_T02><OBX.5><![CDATA[{BARE}]]></OBX.5></MDM_T02>",
        f"<!-- {BARE} --><ADT_A01/>",
        "<ClinicalDocuments/>",
        "<!--" * 4_000,
        "<!-- -->" * 2_000 + "<",
    ],
)
def test_other_files_are_none(text: str) -> None:
    assert not is_document(text.encode())
