"""Sections of a page of docs/ that are generated from the code: between ``<!-- generated: NAME -->`` and ``<!-- end -->``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping


def table(heads: Iterable[str], rows: Iterable[str]) -> str:
    """Return a Markdown table of *rows*, each a line of its own already."""
    names = list(heads)
    return "\n".join([f"| {' | '.join(names)} |", f"|{'---|' * len(names)}", *rows])


def filled(page: str, sections: Mapping[str, str], *, name: str) -> str:
    """Return *page*, the text of the file *name*, with every one of *sections* written anew.

    Raises:
        ValueError: *page* lacks the markers of a section, or has them twice.
    """
    for key, text in sections.items():
        section = re.compile(rf"(<!-- generated: {key} -->\n).*?(<!-- end -->)", re.DOTALL)
        page, count = section.subn(lambda match, text=text: f"{match[1]}\n{text}\n\n{match[2]}", page)
        if count != 1:
            raise ValueError(f"{name} has {count} sections `generated: {key}`; it must have one.")
    return page
