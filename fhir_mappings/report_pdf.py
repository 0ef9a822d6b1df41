"""A DiagnosticReport on paper: one PDF page or more, Chinese first.

Made when the reading side gave no PDF of its own, because a HIS files the document beside the result text. The same
report gives the same bytes. The font is Adobe's STSong-Light by name (ISO 32000-1 9.7.5.2); viewers bring their own.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from reportlab.lib.pagesizes import A4
from reportlab.lib.utils import simpleSplit
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfgen.canvas import Canvas

_FONT = "STSong-Light"
_MARGIN = 56.0
_LINE = 18.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportPage:
    """What the document shows.

    Attributes:
        facts: pairs of label and value above the text, for example ``("姓名 Name", "郑伟")``.
        sections: pairs of heading and text, for example findings and impression.
        signatures: lines below the text.
    """

    institution: str
    title: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[tuple[str, str]]
    signatures: Sequence[str]
    footer: str = ""


def render(page: ReportPage) -> bytes:
    """Return the PDF of *page*; text is wrapped and flows on to further pages."""
    pdfmetrics.registerFont(UnicodeCIDFont(_FONT))
    buffer = io.BytesIO()
    canvas = Canvas(buffer, pagesize=A4, invariant=1, pageCompression=1)
    canvas.setTitle(page.title)
    width, height = A4
    y: float = height - _MARGIN

    def advance(lines: float = 1.0) -> float:
        nonlocal y
        y -= _LINE * lines
        if y < _MARGIN + 2 * _LINE:
            _foot(canvas, page.footer, width)
            canvas.showPage()
            y = height - _MARGIN
        return y

    canvas.setFont(_FONT, 16)
    canvas.drawCentredString(width / 2, y, page.institution)
    canvas.setFont(_FONT, 13)
    canvas.drawCentredString(width / 2, advance(1.4), page.title)
    advance(0.6)
    canvas.setFont(_FONT, 10)
    for row in range(0, len(page.facts), 2):
        position = advance()
        for column, (label, value) in enumerate(page.facts[row : row + 2]):
            canvas.setFont(_FONT, 10)
            canvas.drawString(_MARGIN + column * (width - 2 * _MARGIN) / 2, position, f"{label}：{value}")
    canvas.line(_MARGIN, advance(0.6), width - _MARGIN, y)
    for heading, text in page.sections:
        position = advance(1.4)
        canvas.setFont(_FONT, 12)
        canvas.drawString(_MARGIN, position, heading)
        for line in _wrapped(text, width - 2 * _MARGIN):
            position = advance()
            canvas.setFont(_FONT, 11)
            canvas.drawString(_MARGIN, position, line)
    advance()
    for line in page.signatures:
        position = advance()
        canvas.setFont(_FONT, 10)
        canvas.drawString(_MARGIN, position, line)
    _foot(canvas, page.footer, width)
    canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def _wrapped(text: str, width: float) -> list[str]:
    lines: list[str] = []
    for paragraph in text.splitlines():
        # Chinese has no blanks to break at, so each character may end a line.
        current = ""
        for piece in simpleSplit(paragraph, _FONT, 11, width) or [""]:
            current = ""
            for character in piece:
                if pdfmetrics.stringWidth(current + character, _FONT, 11) > width:
                    lines.append(current)
                    current = ""
                current += character
            lines.append(current)
    return lines


def _foot(canvas: Canvas, text: str, width: float) -> None:
    canvas.setFont(_FONT, 8)
    canvas.drawCentredString(width / 2, _MARGIN / 2, text)
