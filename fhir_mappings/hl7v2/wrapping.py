"""What an HL7 v2 message comes wrapped in: SOAP 1.1 and 1.2, plain XML around ER7, the XML encoding, or a JSON row.

Many hospitals offer no MLLP but a web service that carries a message as text (https://www.w3.org/TR/soap12/,
https://www.w3.org/TR/2000/NOTE-SOAP-20000508/). The wrapping is taken off where a message is decoded, so the journal keeps
what was received byte for byte, and a replay reads the same again.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Literal

from fhir_mappings import markup
from fhir_mappings.errors import MalformedError, MappingError
from fhir_mappings.hl7v2 import row, xml_encoding
from fhir_mappings.hl7v2.tokenizer import parse
from fhir_mappings.markup import Element, escape
from fhir_mappings.text import Decoded

SOAP_1_1 = "http://schemas.xmlsoap.org/soap/envelope/"
SOAP_1_2 = "http://www.w3.org/2003/05/soap-envelope"

Form = Literal["er7", "xml"]
#: Names of unqualified parameters where a service has no names for them (JAX-WS 2.2 section 3.6.1); it answers ``return``.
_UNNAMED = re.compile(r"(arg|in|param)\d*")
_HEADER = re.compile(r"(MSH|BHS|FHS)\W")
#: A batch cannot be in a document without these, in whatever character set; UTF-16 has a zero beside each.
_BATCH_BYTES = re.compile(rb"[BF]\0?H\0?S")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapped:
    """One message, or one batch or file of messages, out of its wrapping.

    Attributes:
        text: the message or batch in ER7.
        charset: the Python codec that the wrapping is written in; the answer is written in it too.
        form: how the message stood inside.
        soap: namespace of the SOAP envelope, empty without one.
        path: the elements from below the body (or from the root) to the one that holds the message, that included.
        missing: what a JSON row should have brought and did not, in its own names.
    """

    text: str
    decoded: Decoded
    kind: Literal["xml", "json"]
    form: Form = "er7"
    soap: str = ""
    path: tuple[Element, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def charset(self) -> str:
        """Codec of the wrapping; ASCII alone is read as UTF-8, which it is too."""
        return "utf-8" if self.decoded.codec == "ascii" else self.decoded.codec


def kind_of(raw: bytes) -> Literal["xml", "json", ""]:
    """Return what *raw* is wrapped in, by its first character; empty for ER7, which starts with a letter."""
    start = raw[:64].removeprefix(b"\xef\xbb\xbf").removeprefix(b"\xff\xfe").removeprefix(b"\xfe\xff")
    start = start.lstrip(b" \t\r\n\x00")[:1]
    return "xml" if start == b"<" else "json" if start in {b"{", b"["} else ""


def unwrap(raw: bytes) -> Wrapped:
    """Return the message or batch in *raw*, for which :func:`kind_of` names a wrapping.

    Raises:
        MalformedError: code 100 or 101, saying what is wrong with the wrapping or the row.
    """
    decoded = markup.decode(raw)
    if kind_of(raw) == "json":
        text, missing = row.message(raw, decoded.text)
        return Wrapped(text=text, decoded=decoded, kind="json", missing=missing)
    root = markup.read(decoded.text)
    soap, start = _below_envelope(root)
    found = _find(start)
    if len(found) != 1:
        raise MalformedError(
            f"The XML holds {'no message' if not found else 'more than one message'}.",
            where="Body" if soap else "body",
            remedy="Put one message, as ER7 text or in the namespace urn:hl7-org:v2xml, into the operation's parameter.",
            code=100,
        )
    form, text, path = found[0]
    return Wrapped(text=text, decoded=decoded, kind="xml", form=form, soap=soap, path=path)


def why_not_unwrapped(raw: bytes) -> MappingError | None:
    """Return what is wrong with the wrapping or the row *raw*; ``None`` where nothing is, or where it has no wrapping."""
    try:
        if kind_of(raw):
            unwrap(raw)
    except MappingError as error:
        return error
    return None


def wrapped_batch(raw: bytes) -> Wrapped | None:
    """Return the batch or file (BHS, FHS) that stands in the XML *raw*; ``None`` where none does, or none can be read."""
    if kind_of(raw) != "xml" or _BATCH_BYTES.search(raw) is None:
        return None
    try:
        found = unwrap(raw)
    except MalformedError:
        return None
    return found if found.text.startswith(("BHS", "FHS")) else None


def alone(text: str) -> bytes:
    """Return the one message *text* of a batch as an XML document of its own, which :func:`unwrap` takes off again.

    Its encoding is said with it, so no setting of a feed that is about bare messages changes how it is read.
    """
    return _document(f"<message>{escape(text)}</message>", "utf-8")


def wrap(answer: bytes, wrapped: Wrapped) -> bytes:
    """Return the acknowledgement *answer*, written in the charset of *wrapped*, in the same kind of XML wrapping.

    A message that was an operation's parameter is answered by that operation's result, as the common toolkits name it.
    """
    text = answer.decode(wrapped.charset)
    content = escape(text) if wrapped.form == "er7" else xml_encoding.write(parse(text))
    inner = _response(content, wrapped)
    if wrapped.soap:
        inner = f'<soap:Envelope xmlns:soap="{wrapped.soap}"><soap:Body>{inner}</soap:Body></soap:Envelope>'
    return _document(inner, wrapped.charset)


def fault(reason: str, *, soap: str, charset: str = "utf-8", sender: bool = True) -> bytes:
    """Return a SOAP Fault (SOAP 1.1 section 4.4, SOAP 1.2 section 5.4); *sender* says whose mistake it is."""
    if soap == SOAP_1_2:
        code = "Sender" if sender else "Receiver"
        inner = (
            f"<soap:Fault><soap:Code><soap:Value>soap:{code}</soap:Value></soap:Code><soap:Reason>"
            f'<soap:Text xml:lang="en">{escape(reason)}</soap:Text></soap:Reason></soap:Fault>'
        )
    else:
        code = "Client" if sender else "Server"
        inner = (
            f"<soap:Fault><faultcode>soap:{code}</faultcode><faultstring>{escape(reason)}</faultstring></soap:Fault>"
        )
    inner = f'<soap:Envelope xmlns:soap="{soap}"><soap:Body>{inner}</soap:Body></soap:Envelope>'
    return _document(inner, charset)


def envelope_of(raw: bytes) -> str:
    """Return the SOAP namespace that *raw* names, read or not, so that even what is malformed is answered in its version."""
    return SOAP_1_2 if SOAP_1_2.encode() in raw[:4096] else SOAP_1_1 if SOAP_1_1.encode() in raw[:4096] else ""


def _document(inner: str, charset: str) -> bytes:
    label = {"gb18030": "GB18030", "utf-8": "UTF-8"}.get(charset, charset)
    return f'<?xml version="1.0" encoding="{label}"?>\n{inner}'.encode(charset, "xmlcharrefreplace")


def _below_envelope(root: Element) -> tuple[str, list[Element]]:
    if root.name != "Envelope" or root.space not in {SOAP_1_1, SOAP_1_2}:
        return "", [root]
    body = next((one for one in root.children if one.name == "Body" and one.space == root.space), None)
    if body is None:
        raise MalformedError(
            "The SOAP envelope has no body.", where="Envelope", remedy="Put the message into soap:Body.", code=100
        )
    return root.space, body.children


def _find(start: list[Element]) -> list[tuple[Form, str, tuple[Element, ...]]]:
    found: list[tuple[Form, str, tuple[Element, ...]]] = []
    waiting: list[tuple[Element, tuple[Element, ...]]] = [(one, ()) for one in start]
    while waiting:
        element, above = waiting.pop()
        path = (*above, element)
        if xml_encoding.is_message(element):
            found.append(("xml", xml_encoding.read(element), path))
            continue
        text = element.text.strip("\ufeff \t\r\n")
        if _HEADER.match(text):
            found.append(("er7", _unmangled(text) + "\r", path))
        elif text.startswith("<"):
            # A whole document as text in the parameter; one step deeper and no further.
            inner = markup.read(text)
            if xml_encoding.is_message(inner):
                found.append(("xml", xml_encoding.read(inner), path))
            else:
                found += [
                    ("er7", _unmangled(one) + "\r", path)
                    for child in _all(inner)
                    if _HEADER.match(one := child.text.strip())
                ]
        waiting.extend((child, path) for child in element.children)
    return found


def _all(root: Element) -> list[Element]:
    made, waiting = [], [root]
    while waiting:
        element = waiting.pop()
        made.append(element)
        waiting.extend(element.children)
    return made


def _unmangled(text: str) -> str:
    """Return ER7 that was escaped twice on its way as it was: MSH-2 never holds ``&amp;`` by itself."""
    return html.unescape(text) if re.match(r"(MSH|BHS|FHS)\|\^~\\&amp;", text) else text


def _response(content: str, wrapped: Wrapped) -> str:
    if len(wrapped.path) < 2:
        # The message, or the element around its text, stood alone.
        if wrapped.form == "xml":
            return content
        only = wrapped.path[0]
        return f"<{only.name}Response{_namespace(only)}>{content}</{only.name}Response>"
    operation, holder = wrapped.path[0], wrapped.path[-1]
    if wrapped.form == "xml" and xml_encoding.is_message(holder) and len(wrapped.path) > 1:
        holder = wrapped.path[-2] if len(wrapped.path) > 2 else holder
    elif wrapped.form == "xml":
        # It came as text inside the parameter and goes back as text.
        content = escape(content)
    if _UNNAMED.fullmatch(holder.name):
        result = f'<return xmlns="">{content}</return>' if operation.space else f"<return>{content}</return>"
    else:
        reset = ' xmlns=""' if operation.space and not holder.space else ""
        result = f"<{operation.name}Result{reset}>{content}</{operation.name}Result>"
    return f"<{operation.name}Response{_namespace(operation)}>{result}</{operation.name}Response>"


def _namespace(element: Element) -> str:
    return f' xmlns="{escape(element.space)}"' if element.space else ""
