"""Which OHIF is served, what of it, and what is changed in it so that it runs under ``/viewer/`` and asks nobody else.

OHIF publishes a build that wants to stand at the root of its own host. Each change names how often it must be found; a
release that is built otherwise is refused instead of being served half changed.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from adapters.viewer.words import PHRASES, WORDS

PACKAGE = "@ohif/app"
VERSION = "3.13.2"
#: Subresource integrity of the published tarball, as every npm client computes it.
INTEGRITY = "sha512-WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="

#: The published tarball has 50 MB and unpacks to 213 MB in 249 files; the largest file has 18 MB.
MAX_TARBALL_BYTES = 64 << 20
MAX_FILE_BYTES = 32 << 20
MAX_UNPACKED_BYTES = 256 << 20
MAX_MEMBERS = 1000

#: What is kept: the bundles, codecs, fonts, styles and preset pictures. Left out are the neural networks (``ort/``), the
#: microscopy viewer, source maps, the service worker and its loader (which fetch from elsewhere), sample configurations,
#: the OpenID client, icons of telephones and files for other web servers.
KEPT = re.compile(
    r"(?:[a-zA-Z0-9-]+\.bundle\.[0-9a-f]{16}\.js|[0-9a-f]{16}\.(?:wasm|woff2)|[a-z0-9.]+\.css|assets/images/[A-Za-z0-9-]+\.png)"
)
LICENSE = "package/LICENSE"
INDEX = "package/dist/index.html"
ROOT = "package/dist/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One text that is replaced by another.

    Attributes:
        files: the names of the files that are looked at.
        old: what is replaced.
        new: what comes instead; ``{place}`` is the address of the files.
        times: how often *old* must be found, in all files together.
    """

    why: str
    files: re.Pattern[str]
    old: bytes
    new: bytes
    times: int


#: Namespaces of :data:`WORDS` for which OHIF has no Chinese table, and those whose table it goes on having.
_NEW_TABLES = ("InvestigationalUseDialog", "Messages", "SegmentationPanel")
_OWN_TABLES = ("Common", "DatePicker", "MeasurementTable", "StudyList")


def _own_table(name: str) -> str:
    return f"    {name}: zh_{name}_namespaceObject,\n"


def _translated(*names: str) -> bytes:
    """Return lines of the table of Chinese words; what OHIF translates itself stays."""
    own = {name: f"...zh_{name}_namespaceObject, " for name in _OWN_TABLES}
    return "".join(f"    {name}: {{{own.get(name, '')}{json.dumps(WORDS[name])[1:]},\n" for name in names).encode()


CHANGES = (
    Change(
        why="The bundles and workers load one another from the address that they are served from.",
        files=re.compile(r".*\.js"),
        old=b'__webpack_require__.p = "/";',
        new=b'__webpack_require__.p = "{place}";',
        times=8,
    ),
    Change(
        why="Style sheets find their fonts beside themselves.",
        files=re.compile(r".*\.css"),
        old=b"url(/",
        new=b"url({place}",
        times=5,
    ),
    Change(
        why="A code library of the segmentation tools is not taken from a public network.",
        files=re.compile(r".*\.js"),
        old=b"https://cdn.jsdelivr.net/npm/@itk-wasm/",
        new=b"{place}absent/",
        times=1,
    ),
    Change(
        why="The study list shows a name as its bearer writes it: the ideographic group (PS3.5 section 6.2.1) goes first.",
        files=re.compile(r"app\..*\.js"),
        old=b"  if (element.Value[0].Alphabetic) {\n",
        new=b"  if (element.Value[0].Ideographic) {\n    return element.Value[0].Ideographic;\n  }\n"
        b"  if (element.Value[0].Alphabetic) {\n",
        times=1,
    ),
    Change(
        why="So do the patient's name beside the images,",
        files=re.compile(r"app\..*\.js"),
        old=b"let nameToUse = name.Alphabetic ?? name;",
        new=b"let nameToUse = name.Ideographic ?? name.Alphabetic ?? name;",
        times=1,
    ),
    Change(
        why="and a Han name is written without a comma in it.",
        files=re.compile(r"app\..*\.js"),
        old=b"nameToUse.replace('^', ', ')",
        new=b"nameToUse.replace('^', /[\\u3400-\\u9fff]/.test(nameToUse) ? '' : ', ')",
        times=1,
    ),
    Change(
        why="A date counts when all of it is written: 2025-06-1 is the beginning of 2025-06-13 and not the first of June.",
        files=re.compile(r"app\..*\.js"),
        old=b"const date = parse_parse(value, 'yyyy-MM-dd', new Date());",
        new=b"const date = parse_parse(value.length === 10 ? value : '', 'yyyy-MM-dd', new Date());",
        times=1,
    ),
    Change(
        why="The number of rows of a page is shown before somebody chooses another.",
        files=re.compile(r"app\..*\.js"),
        old=b"r.value === perPage",
        new=b"r.value === String(perPage)",
        times=1,
    ),
    *(
        Change(
            why="Words without a translation get one, first of all the notice that this is no medical device.",
            files=re.compile(r"app\..*\.js"),
            old=_own_table(name).encode(),
            new=_translated(name, *(_NEW_TABLES if name == "StudyList" else ())),
            times=1,
        )
        for name in _OWN_TABLES
    ),
    *(
        Change(
            why="What stands in the program in English alone is said in Chinese first.",
            files=re.compile(r".*\.js"),
            old=old.encode(),
            new=new.encode(),
            times=1,
        )
        for old, new in PHRASES
    ),
)
#: What the index page must say, once each, so that our own page may stand in its place: the program, its style, and the
#: two names that the program expects to find on ``window``.
SCRIPT = re.compile(rb'<script defer src="/(app\.bundle\.[0-9a-f]{16}\.js)"></script>')
STYLE = re.compile(rb'<link href="/(app\.bundle\.css)" rel="stylesheet">')
NAMES = re.compile(rb'function browserImportFunction\(n\)\{return import\(n\)\}window\.PUBLIC_URL="/"</script>')

#: First words of the paths that OHIF's router knows (its modes and its own pages); they are answered by the start page.
ROUTES = frozenset(
    {
        *("viewer", "basic", "segmentation", "tmtv", "usAnnotation", "dynamic-volume", "microscopy"),
        *("notfoundserver", "notfoundstudy", "debug"),
    }
)

#: Names this build: whatever is changed above gets another address, so browsers may keep a file for ever.
BUILD = hashlib.sha256("\n".join([INTEGRITY, KEPT.pattern, *(repr(one) for one in CHANGES)]).encode()).hexdigest()[:16]
PLACE = f"/viewer/files/{BUILD}/"
