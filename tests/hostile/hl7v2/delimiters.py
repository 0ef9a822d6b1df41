"""Hostile delimiters: MSH-1 and MSH-2 must be five or six different printable characters (HL7 v2 chapter 2.5.4).

Where they are not, nothing of the message can be told, its control id least of all: AR under a header of the hub's own.
"""

from __future__ import annotations

from itertools import islice, permutations

from tests.hostile.hl7v2.cases import Case, Family, admit, framed, header

UNUSABLE = {
    "no MSH-2": "|",
    "one character": "|^",
    "two characters": "|^~",
    "three characters": "|^~\\",
    "six characters": "|^~\\&#@",
    "seventy characters": "|" + "^~\\&#" * 14,
    "separator and component alike": "^^~\\&",
    "component and repetition alike": "|^^\\&",
    "component and escape alike": "|^~^&",
    "component and subcomponent alike": "|^~\\^",
    "repetition and escape alike": "|^~~&",
    "escape and subcomponent alike": "|^~\\\\",
    "all alike": "|||||",
    "the truncation character doubled": "|^~\\&&",
    "a letter as separator": "A^~\\&",
    "a letter as component": "|A~\\&",
    "a letter as escape": "|^~X&",
    "a letter as truncation": "|^~\\&P",
    "a digit as separator": "1^~\\&",
    "a digit as repetition": "|^0\\&",
    "a quotation mark as escape": '|^~"&',
    "a quotation mark as separator": '"^~\\&',
    "a space as separator": " ^~\\&",
    "a space as component": "| ~\\&",
    "a tab as separator": "\t^~\\&",
    "a tab in MSH-2": "|^\t\\&",
    "a NUL as separator": "\x00^~\\&",
    "a NUL in MSH-2": "|^~\\\x00",
    "DEL as component": "|\x7f~\\&",
    "an escape character of terminals": "|^~\x1b&",
    "a line feed in MSH-2": "|^~\n\\&",
    "a carriage return in MSH-2": "|^\r~\\&",
    "a full-width separator": "｜^~\\&",
    "a box-drawing separator": "│^~\\&",
    "a Chinese character in MSH-2": "|^~郑&",
    "a full-width component": "|＾~\\&",
    "U+2028 as separator": "\u2028^~\\&",
    "a zero-width space as separator": "\u200b^~\\&",
    "a right-to-left mark in MSH-2": "|^~\u202e&",
}
_CHARACTERS = "!$%*+/:;@#"


def cases() -> list[Case]:
    """Return the family."""
    f = Family("delimiters", 2)
    for name, delimiters in UNUSABLE.items():
        control, patient = f.ids()
        separator = delimiters[0]
        text = admit(control, patient).replace("MSH|^~\\&|", f"MSH{delimiters}{separator}", 1)
        f.text(name, text, "AR 100", charset="utf-8", control="")
    f.text("MSH and nothing else", "MSH", "AR 100", control="")
    f.text("MSH and a separator", "MSH|", "AR 100", control="")
    f.text("MSH and its encoding characters", "MSH|^~\\&", "AR 204", control="")
    f.text("another separator below the header", admit(*f.ids()).replace("PID|", "PID$"), "AE 100")
    # Nothing below the header is cut then, so the number is another one than it seems.
    f.text("other characters than those used below", admit(*f.ids()).replace("MSH|^~\\&|", "MSH|$%*@|").replace("ADT^A04", "ADT$A04"), "AA", stored=False)  # fmt: skip
    f.text("a truncation character", admit(*f.ids()).replace("^~\\&|", "^~\\&#|", 1), "AA")
    for chosen in islice(permutations(_CHARACTERS, 5), 0, 30_240, 3_024):
        control, patient = f.ids()
        s, c, r, e, _ = chosen
        text = "\r".join(
            [
                header(control, delimiters="".join(chosen)),
                s.join(["EVN", "A04", "20250611080000"]),
                s.join(
                    ["PID", "1", "", f"{patient}{c}{c}{c}{c}IDCard", "", f"x{e}X0D{e}|^~\\&{r}y", "", "19760229", "M"]
                ),
                "",
            ]
        )
        f.add(f"the usable set {''.join(chosen)}", framed(text.encode()), says="AA", stored=True)
    return f.cases
