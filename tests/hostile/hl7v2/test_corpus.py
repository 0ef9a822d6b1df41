"""The corpus of hostile HL7 v2, through a socket of a hub that is up: the right answer to each case, and nothing more."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.ports import Database
from tests.hostile.hl7v2 import er7
from tests.hostile.hl7v2.cases import SMUGGLED
from tests.hostile.hl7v2.corpus import corpus
from tests.hostile.hl7v2.running import Outcome, peak_bytes, running, text_of

#: Several copies of the largest message, as bytes and as text of one, two and four bytes a character.
MOST_GROWTH_BYTES = 512 << 20
_ANSWER = re.compile("MSH MSA( ERR)*")
#: A query's answer says its status too, also where the query is refused (chapter 5.5.2).
_QUERY = re.compile("MSH MSA( ERR)* QAK")
_BATCH = re.compile("(FHS )?(BHS (MSH MSA (ERR )*)*BTS)?( FTS)?")


def test_the_corpus_is_as_large_as_promised_and_names_each_case_once() -> None:
    cases = corpus()
    assert len(cases) >= 500
    assert [name for name, times in Counter(case.name for case in cases).items() if times > 1] == []
    families = Counter(case.name.partition(":")[0] for case in cases)
    assert families["framing"] >= 40
    assert families["delimiters"] >= 30


def test_the_corpus_is_the_same_each_time() -> None:
    again = corpus.__wrapped__()
    assert again == corpus()


def test_every_case_gets_its_answer_and_nothing_wrong_is_stored(database: Database, tmp_path: Path) -> None:
    wrong: list[str] = []
    before = peak_bytes()
    with running(database, tmp_path) as hub:
        for case in corpus():
            outcome = hub.send(case)
            wrong += [f"{case.name}: {what}" for what in _wrong(outcome)]
        numbers = hub.patient_numbers()
    assert wrong == []
    ours = {number for number in numbers if re.fullmatch("7[0-9]{8}", number)}
    assert ours == {number for case in corpus() for number in case.patients}
    assert SMUGGLED not in numbers
    assert peak_bytes() - before < MOST_GROWTH_BYTES


def _wrong(outcome: Outcome) -> Iterator[str]:
    """Yield what is not as the case says."""
    case = outcome.case
    if outcome.said() != case.says:
        yield f"answered {outcome.said()[:3]} for {case.says[:3]}"
    if outcome.ending != case.then:
        yield f"then {outcome.ending} for {case.then}"
    controls = outcome.controls()
    if any(given not in {None, found} for given, found in zip(case.control, controls, strict=False)):
        yield f"MSA-2 {[one[:20] for one in controls[:3]]} for {case.control[:3]}"
    states = tuple(entry.state for entry in outcome.journal)
    if states != case.writes:
        yield f"the journal says {states[:3]} for {case.writes[:3]}"
    for entry in outcome.journal:
        whole = entry.body is not None and len(entry.body) == entry.size
        if whole and hashlib.sha256(entry.body or b"").hexdigest() != entry.digest:
            yield "the journal does not hold what was received"
        if entry.ack is not None and not any(entry.ack in answer for answer in outcome.answers):
            yield "the journal holds another answer than was given"
    for answer in outcome.answers:
        names = " ".join(one.name for one in er7.read(text_of(answer)))
        due = [_ANSWER, _BATCH, *([_QUERY] if "QBP" in case.name else [])]
        if not any(pattern.fullmatch(names) for pattern in due):
            yield f"the answer's segments are {names[:80]}"


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (b"MSH|^~\\&|A\rMSA|AA|1\rPID|1\r", ["MSH", "MSA", "PID"]),
        ("MSH|^~\\&|A\rMSA|AA|1\u0085PID|1\r".encode(), ["MSH", "MSA", "PID"]),
        ("MSH|^~\\&|A\rMSA|AA|1\u2028PID|1\r".encode(), ["MSH", "MSA", "PID"]),
    ],
)
def test_the_second_reader_sees_an_injected_segment(answer: bytes, names: list[str]) -> None:
    assert [one.name for one in er7.read(text_of(answer))] == names
