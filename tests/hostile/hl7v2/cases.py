"""What a hostile HL7 v2 case is: bytes as they go on the wire, and the only answer that is right.

The classes of answers are those of HL7 v2 chapter 2.9 and table 0357: ``AA``, ``AE 102`` (MSA-1 and the first ERR), an
empty list where the hub says nothing. Every case ends in one of two ways: the connection goes on, which an ordinary
message right behind proves, or the hub closes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from adapters.mllp.frames import END, START

VT, FS, CR = bytes([START]), bytes([END]), b"\r"
TAIL = FS + CR

#: A patient number that hostile text tries to smuggle in; it is in no store and no answer ever.
SMUGGLED = "666000666"

Ending = Literal["goes on", "closed"]
_TAKEN = frozenset({"AA", "CA"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One hostile case.

    Attributes:
        name: family and what is hostile in it; unique.
        wire: what is sent, one write each.
        says: the answers in order, ``MSA-1`` and the code of the first ERR.
        patients: PID-3.1 of those whom the hub knows afterwards because of this case.
        hurried: the case needs a door with short deadlines and a small cap.
        ends: the peer says that it will send no more.
        control: MSA-2 of each answer, ``None`` where the name of the case says enough.
        writes: the states of the journal lines that the case leaves, in order.
    """

    name: str
    wire: tuple[bytes, ...]
    says: tuple[str, ...]
    then: Ending = "goes on"
    patients: tuple[str, ...] = ()
    hurried: bool = False
    ends: bool = False
    control: tuple[str | None, ...] = ()
    writes: tuple[str, ...] = ()


def framed(payload: bytes) -> bytes:
    """Return *payload* between the block bytes, whatever is in it."""
    return VT + payload + TAIL


def header(control: str, *, delimiters: str = "|^~\\&", **fields: str) -> str:
    """Return an MSH of KN's HIS; *fields* are ``f9`` and so on, written as they are given."""
    f, c = delimiters[0], delimiters[1]
    values = {
        3: "HIS", 4: "KNYY", 5: "YIXIE", 6: "HUB", 7: "20250611080000", 8: "", 9: f"ADT{c}A04", 10: control, 11: "P", 12: "2.4",
    }  # fmt: skip
    values |= {int(key[1:]): value for key, value in fields.items()}
    return f"MSH{delimiters}{f}" + f.join(values.get(number, "") for number in range(3, max(values) + 1))


def admit(control: str, patient: str, *, extra: str = "", name: str = "郑伟", pid: str = "", **fields: str) -> str:
    """Return an ADT^A04 about *patient*; *pid* stands in place of the whole PID."""
    who = pid or f"PID|1||{patient}^^^^IDCard||{name}||19760229|M"
    return f"{header(control, **fields)}\rEVN|A04|20250611080000\r{who}\r{extra}"


class Family:
    """Collects the cases of one kind; each gets a control id and a patient number of its own."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self._base = number * 10_000
        self.cases: list[Case] = []

    def ids(self) -> tuple[str, str]:
        """Return the control id and the patient number of the next case."""
        number = self._base + len(self.cases)
        return f"C{number}", f"7{number:08}"

    def add(
        self,
        name: str,
        *wire: bytes,
        says: tuple[str, ...] | str = (),
        then: Ending = "goes on",
        stored: bool | tuple[str, ...] = False,
        hurried: bool = False,
        ends: bool = False,
        control: tuple[str | None, ...] | None = None,
        writes: tuple[str, ...] | None = None,
    ) -> None:
        """Add a case; *stored* says that the patient of :meth:`ids` is known afterwards.

        Unless *writes* says otherwise, each answer stands for one line of the journal.
        """
        own, patient = self.ids()
        answers = (says,) if isinstance(says, str) else says
        kept = stored if isinstance(stored, tuple) else (patient,) if stored else ()
        self.cases.append(
            Case(
                name=f"{self.name}: {name}",
                wire=wire,
                says=answers,
                then=then,
                patients=kept,
                hurried=hurried,
                ends=ends,
                control=(own,) * len(answers) if control is None else control,
                writes=tuple("done" if one in _TAKEN else "refused" for one in answers) if writes is None else writes,
            )
        )

    def text(
        self, name: str, text: str, says: str, *, charset: str = "gb18030", stored: bool | None = None,
        control: str | None = "own",
    ) -> None:  # fmt: skip
        """Add a case of one well-framed message; unless *stored* says otherwise, AA means that it is stored."""
        kept = says == "AA" if stored is None else stored
        known = None if control == "own" else (control,)
        self.add(name, framed(text.encode(charset)), says=says, stored=kept, control=known)
