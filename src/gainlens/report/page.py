"""Write a run as report.html: one page that needs nothing else and requests nothing.

The page carries a content security policy that allows its own scripts by their hashes, its own
styles, and images within it.  No request leaves the browser, and text that got past the escaping
would still not run.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gainlens.claims.wording import yes_no
from gainlens.core.glossary import GLOSSARY
from gainlens.core.names import CLAIM_FIGURE
from gainlens.core.table import Table
from gainlens.figures.dark import PARTNERS, dark_svg
from gainlens.figures.looks import looks
from gainlens.notebook.published import HYPOTHESIS
from gainlens.records.comparison import Comparison
from gainlens.report.answer import answer, difference, doubts, vetoes
from gainlens.report.captions import CLAIM_CAPTION, FIGURES
from gainlens.report.explorer import Explored, page_data
from gainlens.report.run import Run
from gainlens.report.tables import last_block, long_tables, supporting

PAGE: Final = "report.html"
_SCRIPTS: Final = ("vendor/d3.min.js", "vendor/plot.umd.min.js", "explore.js")
_ESCAPES: Final = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}
_FONTS: Final = "'DejaVu Sans', Verdana, 'Noto Sans', sans-serif"
"""matplotlib names the first alone, which no phone has."""
_HEADLINE: Final = "headline"
_NARROW: Final = "_narrow"
"""Ending of the name of a figure that a phone shows instead of the wide one."""


def page_html(
    run: Run,
    figures: Mapping[str, str],
    models: Mapping[str, Explored],
    said: str = "",
    tables: Sequence[Table] = (),
    badges: Sequence[tuple[str, str]] = (),
) -> str:
    """Return the page of a run; the same input gives the same text.

    Args:
        run: a comparison, or a measurement that tests no claim.
        figures: SVG text by figure name.  A name that ends in `_narrow` is shown on a phone.
        models: from `explorer.explored`, by model key.
        said: a measurement's answer in one line; a comparison has its own.
        tables: the first is shown and the others are folded; those of a comparison if empty.
        badges: every claim that a measurement tests, with its outcome.

    Raises ValueError if a figure is no SVG.
    """
    scripts = _scripts()
    hashes = " ".join(f"'{_hash(script)}'" for script in scripts)
    shown = _figures(run, figures)
    first = next((figure.name for figure in shown), "")
    first_table, *folded = tables or [last_block(run), *supporting(run), *long_tables(run)]
    return _template().render(
        run=run,
        title=_title(run),
        said=said,
        badges=badges,
        claim=_claim(run) if isinstance(run, Comparison) else None,
        policy="default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        f"form-action 'none'; script-src {hashes}",
        style=Markup(_asset("report.css")),  # our own file
        scripts=[Markup(script) for script in scripts],  # our own files, none holds "</script"
        data=script_json(page_data(run, _colours(run), models)),
        headline=[figure for figure in shown if figure.name == first],
        figures=[figure for figure in shown if figure.name != first],
        first_table=first_table,
        tables=folded,
        definitions=GLOSSARY,
        command=run.command,
        spec=json.dumps(run.spec.model_dump(mode="json"), indent=2, ensure_ascii=False),
        yes_no=yes_no,
    )


def _title(run: Run) -> str:
    """Name the models that the page is about: up to three, or the first and how many more."""
    if isinstance(run, Comparison):
        return " against ".join(run.report(role).checkpoint.name for role in ("short", "long"))
    names = [report.checkpoint.name for report in run.reports]
    if len(names) < 4:
        return ", ".join(names)
    return f"{names[0]} and {len(names) - 1} more"


def _claim(comparison: Comparison) -> dict[str, Any]:
    """Return what the page says of the claim."""
    return {
        "hypothesis": HYPOTHESIS,
        "verdict": comparison.verdict,
        "answer": answer(comparison.verdict),
        "difference": difference(comparison.verdict),
        "doubts": doubts(comparison),
        "vetoes": vetoes(comparison.verdict),
    }


def _colours(run: Run) -> dict[str, tuple[str, str]]:
    """Return every model's colour on white and on dark paper, by model key."""
    return {
        report.checkpoint.name: (look.colour, PARTNERS[look.colour.lower()])
        for report, look in zip(run.reports, looks(run.reports), strict=True)
    }


def script_json(value: Any) -> Markup:
    """Return JSON that may stand in a script element.

    No sign in it can end the element or open another.  U+2028 and U+2029, which JavaScript once
    took for line ends, are escaped too.  Raises ValueError for NaN.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(_ESCAPES))


@dataclass(frozen=True)
class _Figure:
    """One figure of the page; images are data URLs."""

    name: str
    title: str
    caption: str
    width: float
    """of the wide drawing, points"""
    images: dict[str, str]
    """light and dark; and narrow and narrow_dark if there is a drawing for a phone"""


def _figures(run: Run, figures: Mapping[str, str]) -> list[_Figure]:
    """Return a claim's own figures, then the others in the order of reading, then those that have
    no caption of ours."""
    wide = [name for name in figures if not name.endswith(_NARROW)]
    known = [name for name in FIGURES if name in wide]
    of_claims = [name for name in wide if name.startswith(CLAIM_FIGURE)]
    shown: list[_Figure] = []
    for name in dict.fromkeys((*of_claims, *known, *wide)):
        unknown = (name.replace("_", " ").capitalize(), "")
        title, caption = FIGURES.get(name, unknown)
        if name in of_claims:
            title, caption = name.removeprefix(CLAIM_FIGURE), CLAIM_CAPTION
        images = {
            "light": _image(name, figures[name]),
            "dark": _image(name, dark_svg(figures[name])),
        }
        if (narrow := figures.get(name + _NARROW)) is not None:
            images |= {
                "narrow": _image(name, narrow),
                "narrow_dark": _image(name, dark_svg(narrow)),
            }
        if name == _HEADLINE and isinstance(run, Comparison):
            caption = f"{caption} {run.verdict.headline}"
        shown.append(_Figure(name, title, caption, _width(figures[name]), images))
    return shown


def _image(name: str, svg: str) -> str:
    """Return an SVG as a data URL: an image can neither run a script nor share an id."""
    if "<svg" not in svg:
        raise ValueError(f"the figure {name!r} is no SVG: give the text of an SVG file")
    svg = svg.replace("'DejaVu Sans'", _FONTS)
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode('utf-8')).decode('ascii')}"


def _width(svg: str) -> float:
    """Return an SVG's width in points, from its view box."""
    return float(svg.split('viewBox="', 1)[1].split('"', 1)[0].split()[2])


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


@cache
def _asset(name: str) -> str:
    return resources.files("gainlens").joinpath("templates", name).read_text(encoding="utf-8")


@cache
def _scripts() -> tuple[str, ...]:
    scripts = tuple(_asset(name) for name in _SCRIPTS)
    assert not any("</script" in script.lower() for script in scripts), "would end its element"
    return scripts


@cache
def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("gainlens"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")
