"""A QR code is read back as the address that went in, by a reader that shares no code with the encoder."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from collections.abc import Sequence

import pytest
from PIL import Image

from hub import qr

ADDRESS = "https://hub.example.cn/share/" + "Aa0-_" * 8 + "xyz"
#: Data and error correction codewords of level M by version: (blocks, data codewords of each), ISO/IEC 18004 table 9.
BLOCKS = {3: [44], 4: [32, 32], 5: [43, 43], 6: [27] * 4, 7: [31] * 4}
MASKS = (
    lambda y, x: (y + x) % 2 == 0,
    lambda y, x: y % 2 == 0,
    lambda y, x: x % 3 == 0,
    lambda y, x: (y + x) % 3 == 0,
    lambda y, x: (y // 2 + x // 3) % 2 == 0,
    lambda y, x: y * x % 2 + y * x % 3 == 0,
    lambda y, x: (y * x % 2 + y * x % 3) % 2 == 0,
    lambda y, x: ((y + x) % 2 + y * x % 3) % 2 == 0,
)


def read(rows: Sequence[Sequence[bool]]) -> str:
    """Return the text of an undamaged code of level M in byte mode (ISO/IEC 18004 section 6)."""
    side = len(rows)
    version = (side - 17) // 4
    # Format information, first copy: bits 14 to 10 say level and mask under a fixed pattern.
    said = sum(rows[8][x] << (4 - x) for x in range(5)) ^ 0b10101
    assert said >> 3 == 0b00, "level M"
    masked = MASKS[said & 7]
    reserved = {(6, i) for i in range(side)} | {(i, 6) for i in range(side)}
    for top, left in ((0, 0), (0, side - 8), (side - 8, 0)):
        reserved |= {(top + y, left + x) for y in range(9) for x in range(9)}
    reserved |= {(y, x) for y in range(9) for x in range(side - 8, side)}
    reserved |= {(y, x) for y in range(side - 8, side) for x in range(9)}
    end = side - 7
    reserved |= {(end - 2 + y, end - 2 + x) for y in range(5) for x in range(5)} if version > 1 else set()
    bits: list[bool] = []
    up = True
    for right in [x for x in range(side - 1, 0, -2) if x > 6] + [5, 3, 1]:
        for y in range(side - 1, -1, -1) if up else range(side):
            for x in (right, right - 1):
                if (y, x) not in reserved:
                    bits.append(rows[y][x] ^ masked(y, x))
        up = not up
    words = [int("".join("01"[bit] for bit in bits[at : at + 8]), 2) for at in range(0, len(bits) - 7, 8)]
    sizes = BLOCKS[version]
    assert len(set(sizes)) == 1
    data = [words[column * len(sizes) + block] for block in range(len(sizes)) for column in range(sizes[0])]
    stream = "".join(f"{word:08b}" for word in data)
    assert stream[:4] == "0100", "byte mode"
    length = int(stream[4:12], 2)
    return bytes(int(stream[12 + 8 * at : 20 + 8 * at], 2) for at in range(length)).decode()


@pytest.mark.parametrize("address", [ADDRESS, ADDRESS.replace("hub.example.cn", "h.cn"), f"{ADDRESS}{'q' * 20}"])
def test_the_modules_say_the_address(address: str) -> None:
    assert read(qr.modules(address)) == address


def test_the_png_has_the_modules_and_a_quiet_zone() -> None:
    image = Image.open(io.BytesIO(qr.png(ADDRESS))).convert("1")
    side = len(qr.modules(ADDRESS)) + 2 * qr.QUIET
    scale = image.width // side
    found = [
        [image.getpixel((x * scale + scale // 2, y * scale + scale // 2)) == 0 for x in range(side)]
        for y in range(side)
    ]

    assert image.width == image.height == scale * side >= 600
    assert read([row[qr.QUIET : -qr.QUIET] for row in found[qr.QUIET : -qr.QUIET]]) == ADDRESS
    assert not any(found[0] + found[3] + found[-1])


def test_the_svg_has_a_square_for_each_dark_module_and_no_script() -> None:
    rows = qr.modules(ADDRESS)
    root = ET.fromstring(qr.svg(ADDRESS))  # our own bytes
    path = root[1].attrib["d"]

    assert [one.tag.rpartition("}")[2] for one in root] == ["path", "path"]
    assert path.count("M") == sum(map(sum, rows))
    assert f"M{qr.QUIET} {qr.QUIET}h1" in path


@pytest.mark.parametrize("address", [ADDRESS, ADDRESS.replace("hub.example.cn", "h.cn")])
@pytest.mark.parametrize("colours", [False, True])
def test_a_terminal_shows_the_modules_in_a_quiet_zone(address: str, colours: bool) -> None:
    lines = qr.text(address, colours=colours).split("\n")
    if colours:
        assert {(line[:8], line[-4:]) for line in lines} == {("\x1b[97;40m", "\x1b[0m")}
        lines = [line[8:-4] for line in lines]
    rows = [[character not in half for character in line] for line in lines for half in ("▀█", "▄█")]
    side = len(qr.modules(address)) + 2 * qr.QUIET

    assert {len(line) for line in lines} == {side}
    assert read([row[qr.QUIET : -qr.QUIET] for row in rows[qr.QUIET : side - qr.QUIET]]) == address
    assert not any(map(any, [*rows[: qr.QUIET], *rows[side - qr.QUIET :]]))
    assert set("".join(lines)) == set("█▀▄ ")
