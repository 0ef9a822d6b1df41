"""QR codes (ISO/IEC 18004) of addresses: SVG for pages, PNG for print and messengers, text for terminals.

The encoder is reportlab's; error correction is level M, which bears a crumpled sheet of paper.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

#: Empty modules around the code, which readers need to find it (ISO/IEC 18004 section 6.3.8).
QUIET = 4
_PNG_SIDE = 600


def modules(text: str) -> Sequence[Sequence[bool]]:
    """Return the code of *text*, row by row; ``True`` is dark."""
    from reportlab.graphics.barcode.qrencoder import QRCode, QRErrorCorrectLevel

    code = QRCode(None, QRErrorCorrectLevel.M)
    code.addData(text)
    code.make()
    return [[bool(one) for one in row] for row in code.modules]


def svg(text: str) -> bytes:
    """Return the code as one SVG path on white, without a size of its own."""
    rows = modules(text)
    side = len(rows) + 2 * QUIET
    path = "".join(
        f"M{x + QUIET} {y + QUIET}h1v1h-1z" for y, row in enumerate(rows) for x, dark in enumerate(row) if dark
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side} {side}" shape-rendering="crispEdges">'
        f'<path fill="#fff" d="M0 0h{side}v{side}H0z"/><path d="{path}"/></svg>'
    ).encode()


def png(text: str) -> bytes:
    """Return the code as a black and white PNG of at least 600 pixels, each module the same number of them."""
    from PIL import Image

    rows = modules(text)
    side = len(rows) + 2 * QUIET
    image = Image.new("1", (side, side), 1)
    for y, row in enumerate(rows):
        for x, dark in enumerate(row):
            if dark:
                image.putpixel((x + QUIET, y + QUIET), 0)
    scale = -(-_PNG_SIDE // side)
    out = io.BytesIO()
    image.resize((side * scale, side * scale), Image.Resampling.NEAREST).save(out, "PNG", optimize=True)
    return out.getvalue()


def text(text: str, *, colours: bool) -> str:
    """Return the code as half blocks, two rows of modules a line.

    Args:
        colours: say black on white in so many words (ECMA-48, SGR), for a terminal. Without it light modules are the
            blocks, which is right where letters are lighter than what they stand on.
    """
    rows = modules(text)
    side = len(rows) + 2 * QUIET

    def light(y: int, x: int) -> bool:
        inside = QUIET <= y < side - QUIET and QUIET <= x < side - QUIET
        # Below the last row of an odd number there is half a line of quiet zone more.
        return not (inside and rows[y - QUIET][x - QUIET])

    lines = ["".join(_HALVES[light(y, x), light(y + 1, x)] for x in range(side)) for y in range(0, side, 2)]
    if colours:
        lines = [f"\x1b[97;40m{line}\x1b[0m" for line in lines]
    return "\n".join(lines)


#: A line's two modules, upper and lower; a block is light.
_HALVES = {(True, True): "█", (True, False): "▀", (False, True): "▄", (False, False): " "}
