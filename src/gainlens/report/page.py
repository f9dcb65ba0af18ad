"""A comparison -> report.html: one page that needs nothing else and asks nobody for anything.

The page carries a content security policy that allows its own scripts by their hashes, its own
styles, and images within it: no request leaves the browser, and text that got past the escaping
would still not run.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gainlens.claims.cells import BLIND
from gainlens.claims.wording import nats, yes_no
from gainlens.core.glossary import DEFINITIONS
from gainlens.figures.style import looks
from gainlens.notebook.published import HYPOTHESIS
from gainlens.records.comparison import Comparison
from gainlens.report import long_tables as details
from gainlens.report import tables
from gainlens.report.explorer import Explored, page_data
from gainlens.report.provenance import command_of
from gainlens.report.svg import inline_svg
from gainlens.report.table import Table

PAGE: Final = "report.html"
_SCRIPTS: Final = ("vendor/d3.min.js", "vendor/plot.umd.min.js", "explore.js")
_ESCAPES: Final = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}

FIGURES: Final[dict[str, tuple[str, str]]] = {
    "headline": (
        "The answer at a glance",
        "Log gain of every block of the short and the long model, split into attention and MLP, "
        "and every model's last block as it is, beside the notebook's number.",
    ),
    "gain_curve": (
        "Gain of every block",
        "Gain of every block of every model with its simultaneous band; above 1 a block expands.",
    ),
    "verdict_forest": (
        "Every way of measuring the last block",
        "Gain of the last block for each token class, reduction and length of prompts, before and "
        "after the final norm. The shaded row was named before the run.",
    ),
    "massive_lifecycle": (
        "Massive tokens from writing to erasing",
        "Norm of position 0, massive and ordinary tokens between blocks, and how many tokens each "
        "block makes massive or erases.",
    ),
    "gain_by_position": (
        "Gain against position",
        "Gain of the last block by position in the prompt, with quartiles over prompts.",
    ),
    "attribution": (
        "What the difference can be put down to",
        "Effects of theta, of context and of both on the last block's log gain, with intervals.",
    ),
    "training": (
        "Along training",
        "Held-out loss, the last block's gain and the notebook's number of every cell of the "
        "shipped design against tokens seen, all seeds.",
    ),
    "ablation_zero": (
        "Components ablated to zero, one at a time",
        "Change of the last block's log gain, of the notebook's number and of the loss with each "
        "component of the last blocks set to 0.",
    ),
    "ablation_mean": (
        "Components ablated to their mean, one at a time",
        "The same with each component set to its mean over the prompts.",
    ),
    "theta_dose": (
        "Theta on fixed weights",
        "Change of the last block's log gain and of the loss when the same weights are measured "
        "under another RoPE base.",
    ),
    "unembed_spectrum": (
        "Spectrum of the unembedding",
        "Singular values of W_U over the square root of the vocabulary, by rank.",
    ),
    "rope_wavelengths": (
        "RoPE wavelengths",
        "Tokens a turn of every rotated pair of dimensions, against each model's context.",
    ),
    "notebook": (
        "The notebook's figure",
        "The notebook's bars and curves, drawn from this run: its last_gain is taken after the "
        "final norm.",
    ),
}
"""Title and description of every figure, in the order of reading."""


def page_html(
    comparison: Comparison, figures: Mapping[str, str], models: Mapping[str, Explored]
) -> str:
    """The page of a run.

    figures: SVG text by figure name, the headline first in the page; models: what it lets one
    explore of each, by key (drawn.explored).

    The same input gives the same text.  About 1 MB, and at most 3.6 MB of it for the maps, however
    large the run.  Raises ValueError where a figure is no SVG.
    """
    template, scripts = _template(), _scripts()
    colours = {
        report.checkpoint.name: look.colour
        for report, look in zip(comparison.reports, looks(comparison.reports), strict=True)
    }
    hashes = " ".join(f"'{_hash(script)}'" for script in scripts)
    return template.render(
        run=comparison,
        verdict=comparison.verdict,
        short=comparison.report("short"),
        long=comparison.report("long"),
        hypothesis=HYPOTHESIS,
        policy="default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        f"form-action 'none'; script-src {hashes}",
        style=Markup(_asset("report.css")),  # our own file
        scripts=[Markup(script) for script in scripts],  # our own files, none holds "</script"
        data=script_json(page_data(comparison, colours, models)),
        figures=_figures(comparison, figures),
        tables=_tables(comparison),
        details=_details(comparison),
        definitions=DEFINITIONS,
        vetoes=[line for line in comparison.verdict.dissent if not line.endswith(BLIND)],
        blind=[line for line in comparison.verdict.dissent if line.endswith(BLIND)],
        command=command_of(comparison.spec),
        spec=json.dumps(comparison.spec.model_dump(), indent=2, ensure_ascii=False),
        nats=nats,
        yes_no=yes_no,
    )


def script_json(value: Any) -> Markup:
    """JSON that may stand in a script element: no sign in it can end the element or open another,
    and U+2028 and U+2029, which JavaScript once took for line ends, are escaped too."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(_ESCAPES))


def _tables(comparison: Comparison) -> list[Table]:
    made = [tables.gains, tables.numbers, tables.notebook]
    if comparison.verdict.attribution:
        made.append(tables.attribution)
    made += [make for make, rows in _interventions(comparison) if rows]
    made += [tables.weights, tables.rope, tables.controls]
    return [make(comparison) for make in made]


def _interventions(comparison: Comparison) -> list[tuple[Callable[[Comparison], Table], Any]]:
    """Tables of interventions, each with what there must be for it."""
    done = [report.interventions for report in comparison.reports]
    return [
        (tables.ablated, comparison.spec.ablate),
        (tables.sweep, any(one.sweep for one in done)),
        (tables.components, comparison.verdict.components),
        (tables.theta, any(one.theta_dose for one in done)),
        (tables.token_controls, comparison.spec.controls),
    ]


def _details(comparison: Comparison) -> list[Table]:
    return [
        details.cells(comparison),
        *(details.massive(report) for report in comparison.reports if report.massive),
        *(details.blocks(report) for report in comparison.reports),
    ]


def _figures(comparison: Comparison, figures: Mapping[str, str]) -> list[dict[str, Any]]:
    known = [name for name in FIGURES if name in figures]
    shown: list[dict[str, Any]] = []
    for name in (*known, *(name for name in figures if name not in FIGURES)):
        title, caption = FIGURES.get(name, (name.replace("_", " ").capitalize(), ""))
        said = f"{caption} {comparison.verdict.headline}" if name == "headline" else caption
        svg = Markup(inline_svg(figures[name], name, title, said))  # ElementTree escaped it
        shown.append({"name": name, "title": title, "caption": caption, "svg": svg})
    return shown


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
