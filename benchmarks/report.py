"""What a run leaves behind: ``results/latest.json``, ``results/latest.md``, and the same table in docs and README."""

from __future__ import annotations

import json
import os
import platform
import re
import sqlite3
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, Spread, Target, row_from
from benchmarks.processes import orthanc_version

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PERFORMANCE = ROOT / "docs" / "performance.md"
README = ROOT / "README.md"
#: The table stands between these lines; what is around them is written by hand.
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
#: Rows of the benchmark ``growth`` have a table and a picture of their own, in the page on performance alone.
GROWTH_BEGIN, GROWTH_END = "<!-- growth:begin -->", "<!-- growth:end -->"
PLOT = "growth.svg"
_GROWTH = "growth-"
_GROWN = re.compile(re.escape(GROWTH_BEGIN) + r".*?" + re.escape(GROWTH_END), re.DOTALL)
#: The same for what a v2 message costs (:mod:`benchmarks.hl7_cost`).
ENGINE_BEGIN, ENGINE_END = "<!-- engine:begin -->", "<!-- engine:end -->"
STAGES_PLOT = "stages.svg"
_STAGES, _STORED, _FEEDS = "stages-", "v2growth-", "v2feeds-"
_ENGINE = re.compile(re.escape(ENGINE_BEGIN) + r".*?" + re.escape(ENGINE_END), re.DOTALL)
_APART = (_GROWTH, _STAGES, _STORED, _FEEDS)
_COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8a5a9e", "#e0902f", "#444444")
_MARKED = re.compile(re.escape(BEGIN) + r".*?" + re.escape(END), re.DOTALL)


def machine(folder: Path) -> dict[str, Any]:
    """Return the facts that figures depend on: cores, memory, file system, versions."""
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    dcmtk = subprocess.run(["dcmsend", "--version"], check=False, capture_output=True, text=True).stdout
    found = re.search(r"DCMTK v?(\d\S+)|dcmsend v(\d\S+)", dcmtk)
    filesystem = subprocess.run(
        ["stat", "-f", "-c", "%T", str(folder)], check=False, capture_output=True, text=True
    ).stdout.strip()
    return {
        "cores": os.cpu_count(),
        "processor": model.group(1) if model else platform.machine(),
        "memory_gib": round(int(memory.group(1)) / (1 << 20)) if memory else None,
        "filesystem": filesystem,
        "fsync_ms": round(fsync_ms(folder), 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "dcmtk": next((part for part in found.groups() if part), "") if found else "",
        "orthanc": orthanc_version(),
        "commit": commit.stdout.strip(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def fsync_ms(folder: Path) -> float:
    """Return the median time of an appended 4 KiB and its fsync, on which every durable figure depends."""
    import statistics
    import time

    path = folder / "fsync-probe"
    took = []
    with path.open("wb", buffering=0) as probe:
        for _ in range(50):
            start = time.perf_counter()
            probe.write(b"\0" * 4096)
            os.fsync(probe.fileno())
            took.append((time.perf_counter() - start) * 1000)
    path.unlink()
    return statistics.median(took)


# --- the table -------------------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Return *value* with as many digits as it is worth."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(value: Spread | None, unit: str) -> str:
    """Return the median, with the extremes where there were rounds."""
    if value is None:
        return "–"
    if value.rounds == 1 or value.low == value.high:
        return f"{number(value.median)} {unit}"
    return f"{number(value.median)} {unit} ({number(value.low)}–{number(value.high)})"


def target(value: Target, unit: str) -> str:
    """Return the target in words."""
    parts = [f"≥ {number(value.at_least)} {unit}"] if value.at_least is not None else []
    parts += [f"≤ {number(value.at_most)} {unit}"] if value.at_most is not None else []
    parts += [f"≥ {value.ratio:g} × peer"] if value.ratio is not None else []
    return ", ".join(parts) or "–"


def verdict(row: Row) -> str:
    """Return whether the target was reached; sizes it is not stated for decide nothing."""
    if row.reached is None or not row.counted:
        return "–"
    return "yes" if row.reached else "**no**"


def table(rows: Sequence[Row]) -> str:
    """Return the Markdown table of *rows*."""
    lines = ["| work | hub | peer | ratio | target | reached | |", "|---|---|---|---|---|---|---|"]
    for row in (one for one in rows if not one.key.startswith(_APART)):
        peer = f"{row.peer_name}: {spread(row.peer, row.unit)}" if row.peer else "–"
        ratio = f"{row.ratio:.2f}" if row.ratio is not None else "–"
        cells = (row.work, spread(row.hub, row.unit), peer, ratio, target(row.target, row.unit), verdict(row), row.note)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def growth(rows: Sequence[Row], prefix: str = _GROWTH) -> str:
    """Return the Markdown table of how cost grows: a line for each kind of work, a column for each size of what is stored."""
    series = _series(rows, prefix)
    if not series:
        return ""
    sizes = list(dict.fromkeys(row.note for found in series.values() for row in found))
    lines = [f"| work | {' | '.join(sizes)} |", f"|---|{'---|' * len(sizes)}"]
    for work, found in series.items():
        cells = {row.note: spread(row.hub, row.unit) for row in found}
        lines.append(f"| {work} | {' | '.join(cells.get(size, '–') for size in sizes)} |")
    return "\n".join(lines)


def _series(rows: Sequence[Row], prefix: str = _GROWTH) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.key.startswith(prefix):
            found.setdefault(row.work, []).append(row)
    return found


def plot(rows: Sequence[Row]) -> str:
    """Return an SVG picture of the same: cost relative to the smallest index, where a flat line is what is wanted."""
    series = _series(rows)
    width, height, left, top, right = 860, 360, 60, 20, 300
    inner, depth = width - left - right, height - top - 60
    costs = {
        work: [1 / row.hub.median if row.more_is_better else row.hub.median for row in found]
        for work, found in series.items()
    }
    ratios = {work: [value / values[0] for value in values] for work, values in costs.items()}
    highest = max(2.0, *(value for values in ratios.values() for value in values)) if ratios else 2.0
    sizes = list(dict.fromkeys(row.note for found in series.values() for row in found))

    def x(step: int) -> float:
        return left + inner * step / max(1, len(sizes) - 1)

    def y(value: float) -> float:
        return top + depth * (1 - value / highest)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for tick in range(int(highest) + 1):
        parts.append(f'<line x1="{left}" x2="{left + inner}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick} x</text>')
    for step, size in enumerate(sizes):
        anchor = "start" if step == 0 else "end" if step == len(sizes) - 1 else "middle"
        for line, text in enumerate(size.split(" / ")):
            place = f'x="{x(step):.1f}" y="{height - 34 + 16 * line}" text-anchor="{anchor}"'
            parts.append(f"<text {place}>{text}</text>")
    for number, (work, values) in enumerate(ratios.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        points = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in enumerate(values))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<rect x="{left + inner + 20}" y="{top + number * 22}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{left + inner + 38}" y="{top + number * 22 + 11}">{work}</text>')
    return "\n".join([*parts, "</svg>", ""])


def publish_growth(rows: Sequence[Row], *, page: Path = PERFORMANCE) -> None:
    """Put the table and the picture of how cost grows into *page* and beside it."""
    if _series(rows):
        before = page.read_text("utf-8")
        page.write_text(_GROWN.sub(lambda _: growth_section(rows), before, count=1), "utf-8")
        (page.parent / PLOT).write_text(plot(rows), "utf-8")


def growth_section(rows: Sequence[Row]) -> str:
    """Return what stands between the marks of the growth table."""
    return f"{GROWTH_BEGIN}\n{growth(rows)}\n\n![cost relative to the smallest index]({PLOT})\n{GROWTH_END}"


def stages_plot(rows: Sequence[Row]) -> str:
    """Return an SVG picture of the stages: a bar for each kind of message, cut in proportion to what each stage takes."""
    series = _series(rows, _STAGES)
    kinds = list(dict.fromkeys(row.note for found in series.values() for row in found))
    spent = {
        kind: [(stage, next(row.hub.median for row in found if row.note == kind)) for stage, found in series.items()]
        for kind in kinds
    }
    left, inner, line = 150, 560, 34
    height = 60 + line * len(kinds)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="860" height="{height}" fill="white"/>',
    ]
    for place, (kind, found) in enumerate(spent.items()):
        top, x, whole = 10 + line * place, float(left), sum(value for _, value in found) or 1.0
        parts.append(f'<text x="{left - 8}" y="{top + 16}" text-anchor="end">{kind}</text>')
        for number_, (_, value) in enumerate(found):
            width = inner * value / whole
            colour = _COLOURS[number_ % len(_COLOURS)]
            parts.append(f'<rect x="{x:.1f}" y="{top}" width="{width:.1f}" height="24" fill="{colour}"/>')
            x += width
        parts.append(f'<text x="{left + inner + 8}" y="{top + 16}">{number(whole)} ms</text>')
    for number_, stage in enumerate(series):
        x, y = left + 110 * number_, 30 + line * len(kinds)
        parts.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{_COLOURS[number_ % len(_COLOURS)]}"/>')
        parts.append(f'<text x="{x + 18}" y="{y + 11}">{stage}</text>')
    return "\n".join([*parts, "</svg>", ""])


def engine_section(rows: Sequence[Row]) -> str:
    """Return what stands between the marks of the engine's tables."""
    tables = [
        growth(rows, _STAGES),
        f"![share of each stage]({STAGES_PLOT})",
        growth(rows, _STORED),
        growth(rows, _FEEDS),
    ]
    return f"{ENGINE_BEGIN}\n{chr(10).join(one + chr(10) for one in tables)}{ENGINE_END}"


def publish_engine(rows: Sequence[Row], *, page: Path = PERFORMANCE) -> None:
    """Put the tables and the picture of what a v2 message costs into *page* and beside it."""
    if _series(rows, _STAGES):
        before = page.read_text("utf-8")
        page.write_text(_ENGINE.sub(lambda _: engine_section(rows), before, count=1), "utf-8")
        (page.parent / STAGES_PLOT).write_text(stages_plot(rows), "utf-8")


def facts(known: Mapping[str, Any], scale: str) -> str:
    """Return the machine in one paragraph."""
    peer = (
        f"Orthanc {known['orthanc']} as Debian ships it, DCMTK {known['dcmtk']}"
        if known["orthanc"]
        else "no peer installed"
    )
    return (
        f"Measured {known['date']} at commit {known['commit']}, scale `{scale}`: {known['cores']} cores "
        f"({known['processor']}), {known['memory_gib']} GiB, {known['filesystem']} where an fsync takes "
        f"{known['fsync_ms']} ms, {known['system']}, Python {known['python']}, SQLite {known['sqlite']}, {peer}. "
        "Medians of the rounds, extremes in brackets; the senders and clients share the cores with what they measure."
    )


# --- files -----------------------------------------------------------------------------------------------------


def write(rows: Sequence[Row], known: Mapping[str, Any], scale: str, *, results: Path = RESULTS) -> None:
    """Write ``latest.json`` and ``latest.md`` under *results*."""
    results.mkdir(parents=True, exist_ok=True)
    value = {"machine": dict(known), "scale": scale, "rows": [row.as_json() for row in rows]}
    (results / "latest.json").write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", "utf-8")
    (results / "latest.md").write_text(f"# Benchmarks\n\n{facts(known, scale)}\n\n{table(rows)}\n", "utf-8")


def read(results: Path = RESULTS) -> tuple[list[Row], dict[str, Any], str]:
    """Return rows, machine and scale of the last run that was kept."""
    value = json.loads((results / "latest.json").read_text("utf-8"))
    return [row_from(one) for one in value["rows"]], value["machine"], value["scale"]


def section(rows: Sequence[Row], known: Mapping[str, Any], scale: str) -> str:
    """Return what stands between the marks."""
    return f"{BEGIN}\n{facts(known, scale)}\n\n{table(rows)}\n{END}"


def publish(path: Path, text: str) -> bool:
    """Put *text* in the place of the marked section of *path*; returns whether the file has such a section."""
    before = path.read_text("utf-8") if path.exists() else ""
    if not _MARKED.search(before):
        return False
    path.write_text(_MARKED.sub(lambda _: text, before, count=1), "utf-8")
    return True
