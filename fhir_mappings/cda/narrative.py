"""The narrative of a section as the XHTML that FHIR allows (CDA R2 section 4.3.5, https://hl7.org/fhir/R4/narrative.html).

A list of what may come through, not of what may not: elements of the CDA block schema become their XHTML twins, everything
else gives its text alone. Attributes stay behind but for the spans of table cells, so there is nothing to run, load or follow.
"""

from __future__ import annotations

from fhir_mappings.markup import Element, escape

_XHTML = "http://www.w3.org/1999/xhtml"
_TWINS = {
    "paragraph": "p",
    "content": "span",
    "footnote": "span",
    "linkHtml": "span",
    "sub": "sub",
    "sup": "sup",
    "table": "table",
    "caption": "p",
    "thead": "thead",
    "tbody": "tbody",
    "tfoot": "tfoot",
    "tr": "tr",
    "th": "th",
    "td": "td",
}
#: Where XHTML allows no text of its own; what stands there in a document is layout.
_NO_TEXT = frozenset({"table", "thead", "tbody", "tfoot", "tr", "ul", "ol"})
#: What may not stand in a paragraph of XHTML, though it may in one of CDA.
_BLOCKS = frozenset({"paragraph", "list", "table"})
#: A picture or a binary part that the document does not carry; the original says where it was.
_LEFT_OUT = frozenset({"renderMultiMedia", "col", "colgroup"})


def div(text: Element | None, media: frozenset[str] = frozenset()) -> str | None:
    """Return the section text as one ``div``, or ``None`` where it says nothing.

    *media* are the ids of the pictures that the document itself carries: where the text shows one, its name stands.
    """
    if text is None:
        return None
    inner = "".join(_content(_with_media(text, media) if media else text, "div"))
    if not (says(text) or "〔见附件" in inner):
        return None
    return f'<div xmlns="{_XHTML}">{inner}</div>'


def joined(div: str, lines: list[tuple[str, str]]) -> str:
    """Return *div* with *lines* below what it has."""
    return div.removesuffix("</div>") + div_of_lines(lines).removeprefix(f'<div xmlns="{_XHTML}">')


def div_of_lines(lines: list[tuple[str, str]]) -> str:
    """Return pairs of (label, value) as one ``div``."""
    rows = "".join(f"<tr><th>{escape(label)}</th><td>{escape(value)}</td></tr>" for label, value in lines)
    return f'<div xmlns="{_XHTML}"><table><tbody>{rows}</tbody></table></div>'


def _with_media(element: Element, media: frozenset[str]) -> Element:
    """Return a copy in which a ``renderMultiMedia`` of the document's own picture is a text that names the attachment."""
    content: list[str | Element] = []
    for one in element.content:
        if isinstance(one, str):
            content.append(one)
        elif one.name == "renderMultiMedia" and (shown := one.attributes.get("referencedObject", "").strip()) in media:
            caption = "".join(part.text for part in one.children if part.name == "caption").strip()
            content.append(Element("content", content=[f"〔见附件 {shown}{'：' if caption else ''}{caption}〕"]))
        else:
            content.append(_with_media(one, media))
    return Element(element.name, element.space, element.attributes, content)


def says(text: Element) -> bool:
    """Return whether a section text has words of its own, not only pictures."""
    waiting = [text]
    while waiting:
        one = waiting.pop()
        if one.name in _LEFT_OUT:
            continue
        if one.text.strip():
            return True
        waiting += one.children
    return False


def _content(element: Element, within: str) -> list[str]:
    # The reader bounds the depth of a document, so recursion is bounded too.
    out: list[str] = []
    for one in element.content:
        if isinstance(one, str):
            if within not in _NO_TEXT:
                out.append(escape(one))
        else:
            out += _element(one, within)
    return out


def _element(element: Element, within: str) -> list[str]:
    name = element.name
    if name in _LEFT_OUT:
        return []
    if name == "br":
        return ["<br/>"]
    if name == "list":
        return _list(element)
    if name == "caption" and within == "table":
        return ["<caption>", *_content(element, "caption"), "</caption>"]
    twin = _TWINS.get(name)
    if twin is None:
        return _content(element, within)
    if twin == "p" and any(one.name in _BLOCKS for one in element.children):
        twin = "div"
    inner = _content(element, twin)
    if twin in {"table", "thead", "tbody", "tfoot", "tr"} and not inner:
        return []
    return [f"<{twin}{_spans(element) if twin in {'td', 'th'} else ''}>", *inner, f"</{twin}>"]


def _list(element: Element) -> list[str]:
    tag = "ol" if element.attributes.get("listType") == "ordered" else "ul"
    out: list[str] = []
    for caption in (one for one in element.children if one.name == "caption"):
        out += ["<p>", *_content(caption, "p"), "</p>"]
    items = [one for one in element.children if one.name == "item"]
    if items:
        out.append(f"<{tag}>")
        for item in items:
            out += ["<li>", *_content(item, "li"), "</li>"]
        out.append(f"</{tag}>")
    return out


def _spans(element: Element) -> str:
    given = ((name, element.attributes.get(name, "")) for name in ("colspan", "rowspan"))
    return "".join(
        f' {name}="{count}"' for name, count in given if count.isascii() and count.isdigit() and len(count) <= 3
    )
