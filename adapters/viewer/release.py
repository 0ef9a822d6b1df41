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
_OWN_TABLES = (
    *("Common", "DatePicker", "ErrorBoundary", "Header", "MeasurementTable", "StudyBrowser", "StudyList"),
    "UserPreferencesModal",
)


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
    Change(
        why="Uncompressed YBR_FULL_422 (PS3.3 C.7.6.3.1.2) has two samples a pixel, in every row.",
        files=re.compile(r"app\..*\.js"),
        old=b"        return (pixelDataLength ===\n"
        b"            (3 * Math.ceil(columns / 2) + Math.floor(columns / 2)) *\n"
        b"                Math.ceil(rows / 2) +\n"
        b"                Math.floor(rows / 2) * columns);",
        new=b"        return pixelDataLength === 2 * columns * rows;",
        times=1,
    ),
    Change(
        why="The small picture of a MONOCHROME1 image (PS3.3 C.7.6.3.1.2) is as bright as the large one.",
        files=re.compile(r".*\.js"),
        old=b"            viewport.renderImageObject(imageOrVolume);\n",
        new=b"            viewport.renderImageObject(imageOrVolume);\n"
        b"            if (imageOrVolume.invert) viewport.setInvertColor(true);\n",
        times=2,
    ),
    Change(
        why="An item of a report may have no name (PS3.3 table C.17-5): it takes the whole page away no longer,",
        files=re.compile(r".*\.js"),
        old=b"    CodeValue,\n    CodeMeaning\n  } = ConceptNameCodeSequence;\n  const isChildFirstNode",
        new=b"    CodeValue,\n    CodeMeaning\n  } = ConceptNameCodeSequence ?? {};\n  const isChildFirstNode",
        times=1,
    ),
    Change(
        why="and stands there without one.",
        files=re.compile(r".*\.js"),
        old=b'  }, CodeMeaning, ": "), isFinding ?',
        new=b'  }, CodeMeaning ? `${CodeMeaning}: ` : ""), isFinding ?',
        times=1,
    ),
    Change(
        why="A message does not end in the word false.",
        files=re.compile(r"app\..*\.js"),
        old=b"${!isProduction && ` ${t('in')} ${context}`}",
        new=b"${isProduction ? '' : ` ${t('in')} ${context}`}",
        times=1,
    ),
    Change(
        why="An image that the hub gives no longer is said: the token has ended (401), or the study is out of reach (404).",
        files=re.compile(r"app\..*\.js"),
        old=b"                throw new Error(`Couldn't retrieve ${url} got status ${response.status}`);",
        new=b"                window.yixie.refused(response.status);\n"
        b"                throw new Error(`Couldn't retrieve ${url} got status ${response.status}`);",
        times=1,
    ),
    Change(
        why="A study is downloaded by its reader, from the menu, with the reader's own token.",
        files=re.compile(r".*\.js"),
        old=b"  if (AppearanceModal) {\n    menuOptions.splice(1, 0, {",
        new=(
            "  menuOptions.push({\n    title: '下载检查 Download study (ZIP)',\n    icon: 'Download',\n"
            "    onClick: () => window.yixie.download()\n  });\n  if (AppearanceModal) {\n    menuOptions.splice(1, 0, {"
        ).encode(),
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

#: Parts of the program that it needs for whatever it shows, in the order in which it asks for them, and those that it needs
#: for the first image of a study. Ahead of its asking they come at once instead of in waves. The names hold for this release;
#: tests/flows/test_viewer_first_image.py says when they are not the ones that it asks for.
FIRST = (
    "1673.bundle.76779c7722e8c6c0.js",
    "6938.bundle.34415aaeea5935b3.js",
    "6489.bundle.95cb243641a61a2f.js",
    "6495.bundle.8e8306fedff44999.js",
    "8478.bundle.4520037e6185b95f.js",
    "89.bundle.b327bf3664812958.js",
    "6214.css",
    "2779.bundle.4621e305af9e2c6a.js",
    "6749.bundle.2a95108fde2dedb6.js",
    "5696.bundle.292d30e7e9e1fab1.js",
    "1483.bundle.256a358f0af21ca9.js",
    "9383.bundle.40008913697b48b8.js",
    "7499.bundle.796480e788eda09a.js",
    "8492.css",
    "8492.bundle.f30e427e47ad3932.js",
    "9290.bundle.90bacace23d695b0.js",
    "4683.bundle.d4913bffd8e587b7.js",
    "1180.bundle.762993518ea30ae3.js",
)
FIRST_OF_STUDY = (
    "7248.bundle.e874b288ff479513.js",
    "3833.css",
    "781.css",
    "781.bundle.54774b486e83a5e1.js",
    "9415.css",
    "9415.bundle.95b6a277cf9bd823.js",
    "3500.bundle.e96688cc0e82b35f.js",
    "9116.bundle.391de9ce46a7ca19.js",
    "100.bundle.cb02411ce321d4e4.js",
    "5406.bundle.4dcfa7c697973300.js",
    "3760.css",
    "3760.bundle.dc948e0d7fbed387.js",
    "1206.bundle.786e5b556f903028.js",
    "2623.css",
    "2623.bundle.44c0c8ec6fa40d03.js",
)


def first(path: str) -> tuple[str, ...]:
    """Return the names of the parts that the page at *path* needs, the main program and its style aside."""
    return FIRST + FIRST_OF_STUDY if f"{path}/".startswith("/viewer/viewer/") else FIRST
