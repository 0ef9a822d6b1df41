"""The benchmarks run, their arithmetic holds, and the published tables are those of the kept results."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import ct, engine, hl7_cost, idle, memory, mllp, recovery, report
from benchmarks.measure import Row, Spread, Target, percentile, row_from
from benchmarks.scale import SCALES
from fhir_mappings.dicom.header import read_header

TINY = SCALES["tiny"]


def row(**changes: object) -> Row:
    values: dict[str, object] = {
        "key": "k",
        "work": "work",
        "unit": "ms",
        "hub": Spread.of([5.0, 10.0, 6.0]),
        "more_is_better": False,
        "peer": Spread.of([12.0]),
        "peer_name": "Peer",
    }
    return Row(**(values | changes))  # type: ignore[arg-type]


def test_a_ratio_says_how_many_times_better_than_the_peer_the_hub_is() -> None:
    assert row().ratio == pytest.approx(2.0)
    assert row(more_is_better=True).ratio == pytest.approx(0.5)
    assert row(peer=None).ratio is None


def test_every_bound_of_a_target_must_hold() -> None:
    assert row(target=Target(at_most=6.0, ratio=2.0)).reached is True
    assert row(target=Target(at_most=5.9, ratio=2.0)).reached is False
    assert row(target=Target(at_most=6.0, ratio=2.1)).reached is False
    assert row(target=Target(at_least=6.1)).reached is False
    assert row(target=Target()).reached is None


def test_a_peer_that_was_not_there_decides_nothing() -> None:
    assert row(peer=None, target=Target(at_most=6.0, ratio=1.0)).reached is None
    assert row(peer=None, target=Target(at_most=5.0, ratio=1.0)).reached is False


def test_the_percentile_is_a_measured_value() -> None:
    values = [float(value) for value in range(1, 201)]
    assert percentile(values, 0.99) == 198.0
    assert percentile(values, 0.5) == 100.0
    assert percentile([7.0], 0.99) == 7.0


def test_a_row_comes_back_from_its_json() -> None:
    one = row(target=Target(at_most=6.0, ratio=2.0), note="a note")
    assert row_from(one.as_json()) == one


def test_the_generated_slice_is_read_as_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "1.dcm"
    path.write_bytes(ct.part10(3, 2, 1, pixels=16, patient=9))
    with path.open("rb") as stream:
        header = read_header(stream)
    assert (header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID) == ct.uids(3, 2, 1)
    assert header.PatientName == "测试^9"
    assert (header.Rows, header.Columns) == (16, 16)


def test_a_large_object_is_as_long_as_its_header_says(tmp_path: Path) -> None:
    pieces = list(ct.large(1, 3 << 20))
    assert int.from_bytes(pieces[0][-4:], "little") == sum(len(piece) for piece in pieces[1:]) == 3 << 20


def test_the_message_benchmark_runs(tmp_path: Path) -> None:
    rows = {one.key: one for one in mllp.run(TINY, tmp_path)}
    assert rows.keys() == {"adt", "adt-p99", "stored", "stored-p99", "oru"}
    assert all(one.hub.median > 0 and not one.counted for one in rows.values())


def test_the_memory_of_every_process_is_counted(tmp_path: Path) -> None:
    [found] = idle.run(TINY, tmp_path)
    for process in ("supervisor", "worker-0", "dimse-1", "mllp-0", "http-1"):
        assert process in found.note
    assert found.hub.median > 0


@pytest.mark.tool("storescu", "dcmsend")
def test_a_killed_hub_comes_back_with_all_that_it_had_answered_for(tmp_path: Path) -> None:
    [found] = recovery.run(TINY, tmp_path)
    assert found.hub.median > 0
    said = re.search(r"all ([\d,]+) objects and ([\d,]+) messages answered before were there", found.note)
    assert said is not None
    # Half of the images of eight senders had been answered when it was killed.
    assert int(said[1]) >= 160
    assert int(said[2]) >= recovery.FEEDS


@pytest.mark.tool("storescu", "dcmsend")
def test_an_answer_for_what_is_lost_ends_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = recovery.load_and_kill

    def lied(*arguments: Any) -> recovery.Answered:
        answered = killed(*arguments)
        answered.messages.append("never sent")
        return answered

    monkeypatch.setattr(recovery, "load_and_kill", lied)
    with pytest.raises(RuntimeError, match="never sent"):
        recovery.run(TINY, tmp_path)


def test_growth_is_seen_at_its_peak() -> None:
    growth = memory.Growth(before=10 * memory.MB, peak=25 * memory.MB, by_process={"a": memory.MB, "b": 14 * memory.MB})
    assert growth.megabytes == 15
    assert growth.where == "most in b: 14 MB"


def grown(work: str, *costs: float, more_is_better: bool = False) -> list[Row]:
    return [
        row(key=f"growth-{work}-{step}", work=work, hub=Spread.of([cost]), peer=None, note=f"{step} studies",
            more_is_better=more_is_better)
        for step, cost in zip((1, 10, 100), costs, strict=False)
    ]  # fmt: skip


def test_growth_has_a_table_of_its_own_with_a_column_for_each_size() -> None:
    rows = [row(), *grown("search", 1.0, 2.0, 3.0), *grown("send", 90.0, 80.0, more_is_better=True)]
    assert "search" not in report.table(rows)
    lines = report.growth(rows).splitlines()
    assert lines[0] == "| work | 1 studies | 10 studies | 100 studies |"
    assert lines[2:] == ["| search | 1.00 ms | 2.00 ms | 3.00 ms |", "| send | 90.0 ms | 80.0 ms | – |"]


def test_the_picture_of_growth_shows_cost_against_the_smallest_size() -> None:
    import xml.etree.ElementTree as ET

    rows = [*grown("search", 1.0, 2.0, 4.0), *grown("send", 100.0, 50.0, 25.0, more_is_better=True)]
    picture = ET.fromstring(report.plot(rows))
    lines = [one.attrib["points"] for one in picture if one.tag.endswith("polyline")]
    # Half the rate is twice the cost, so both rise alike.
    assert len(lines) == 2
    assert lines[0] == lines[1]


def test_the_kept_growth_is_what_the_page_shows() -> None:
    rows, _, _ = report.read()
    if report.growth(rows):
        assert report.growth_section(rows) in report.PERFORMANCE.read_text("utf-8")
        assert report.plot(rows) == (report.PERFORMANCE.parent / report.PLOT).read_text("utf-8")


@pytest.mark.parametrize("path", [report.PERFORMANCE, report.README], ids=lambda path: path.name)
def test_published_figures_are_those_of_the_kept_run(path: Path) -> None:
    rows, machine, scale = report.read()
    assert report.section(rows, machine, scale) in path.read_text("utf-8")
    assert report.table(rows) in (report.RESULTS / "latest.md").read_text("utf-8")


def test_the_cost_of_a_message_has_a_table_and_a_picture(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{report.ENGINE_BEGIN}\n{report.ENGINE_END}\nafter\n", "utf-8")
    rows = hl7_cost.run(TINY, tmp_path / "data")

    report.publish_engine(rows, page=page)

    text = page.read_text("utf-8")
    assert all(f"| {stage} |" in text for stage in hl7_cost.STAGES)
    assert "| ADT^A01 to FHIR |" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert (tmp_path / report.STAGES_PLOT).read_text().count("ORU^R01") == len(hl7_cost.SIZES)
    assert not any(row.work in report.table(rows) for row in rows)


def test_the_engine_benchmark_runs(tmp_path: Path) -> None:
    rows = {one.key: one for one in engine.run(TINY, tmp_path)}

    assert rows.keys() == {"tokenizer", "document", "document-beside", "search", "steady"}
    assert all(one.hub.median >= 0 and not one.counted for one in rows.values())
