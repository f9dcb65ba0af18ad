"""What the site takes from the code instead of saying it twice.

A page asks with a line of its own: `{{ terms: NAME ... }}` or `{{ terms }}` (all of them),
`{{ readme: HEADING }}`, `{{ commands }}`, `{{ presets }}`, `{{ calibration: CHECK }}`,
`{{ notebook }}`.  What does not
exist fails the build.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from gainlens.cli.commands import gainlens_command
from gainlens.core.glossary import DEFINITIONS
from gainlens.core.presets import PRESETS

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "long_context.ipynb"
CALIBRATION = ROOT / "src" / "gainlens" / "data" / "calibration.csv"
FIGURES = ROOT / "figures"
HELP_WIDTH = 80
"""Characters: what a page holds beside its menu, and a terminal at its smallest."""

_REQUEST = re.compile(r"^\{\{ *(\w+)(?:: *(.+?))? *\}\}$", re.MULTILINE)
_ELSEWHERE = re.compile(
    r'<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)="(?:https?:)?//[^>]*>', re.IGNORECASE
)
_LOCAL_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)[^)]+\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The shipped figures become files of the site."""
    for picture in sorted(FIGURES.glob("*.svg")):
        files.append(File.generated(config, f"figures/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Answer the page's requests."""
    return answered(markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """No page may load anything from elsewhere."""
    for page in sorted(Path(config.site_dir).rglob("*.html")):
        if found := _ELSEWHERE.search(page.read_text("utf-8")):
            raise PluginError(f"{page.name} loads from elsewhere: {found[0]}")


def answered(markdown: str) -> str:
    """The page with every request replaced by what it asks for."""

    def answer(request: re.Match[str]) -> str:
        kind, argument = request.groups()
        if kind not in _ANSWERS:
            raise PluginError(f"{request[0]}: there are {', '.join(_ANSWERS)}")
        return _ANSWERS[kind](argument)

    return _REQUEST.sub(answer, markdown)


def _terms(names: str | None) -> str:
    """Definitions as axes.py and columns.py have them, each with its unit, anchor and source."""
    wanted = names.split() if names else sorted(DEFINITIONS)
    unknown = [name for name in wanted if name not in DEFINITIONS]
    if unknown:
        raise PluginError(f"not in columns.DEFINITIONS: {', '.join(unknown)}")
    lines = ['<dl class="terms">']
    for name in wanted:
        term = DEFINITIONS[name]
        source = "" if term.source == "gainlens" else f" <cite>{escape(term.source)}</cite>"
        lines += [
            f'<dt id="{name}"><code>{name}</code> <b>{escape(term.label)}</b>'
            f" <small>{escape(term.unit)}</small></dt>",
            f"<dd>{escape(term.meaning)}.{source}</dd>",
        ]
    return "\n".join([*lines, "</dl>"])


def _readme(heading: str) -> str:
    """A section of README.md; its links into the repository become plain text."""
    sections = re.split(r"^## (.+)$\n", (ROOT / "README.md").read_text("utf-8"), flags=re.MULTILINE)
    found = dict(zip(sections[1::2], sections[2::2], strict=True))
    if heading not in found:
        raise PluginError(f"README.md has no section {heading!r}; it has {', '.join(found)}")
    return _LOCAL_LINK.sub(r"\1", found[heading]).strip()


def _commands(_: str | None) -> str:
    """What every command prints for --help, to the letter."""
    return "\n\n".join(
        f"## {words}\n\n```text\n{context.command.get_help(context)}\n```"
        for words, context in walk("gainlens", gainlens_command, None)
    )


def walk(
    name: str, command: click.Command, parent: click.Context | None
) -> Iterator[tuple[str, click.Context]]:
    """A command and all below it, each under the words that call it."""
    settings = {"terminal_width": HELP_WIDTH, **command.context_settings}
    context = click.Context(command, parent=parent, info_name=name, **settings)
    yield context.command_path, context
    if isinstance(command, click.Group):
        for word in command.list_commands(context):
            below = command.get_command(context, word)
            assert below is not None
            yield from walk(word, below, context)


def _presets(_: str | None) -> str:
    rows = ["| preset | role | model | context | RoPE theta |", "| --- | --- | --- | --- | --- |"]
    for preset, models in PRESETS.items():
        for model in models:
            context = "" if model.context_length is None else f"{model.context_length:,}"
            theta = "" if model.expected_rope_theta is None else f"{model.expected_rope_theta:,.0f}"
            rows.append(f"| `{preset}` | {model.role} | `{model.hf_name}` | {context} | {theta} |")
    return "\n".join(rows)


def _calibration(check: str | None) -> str:
    """One kind of rate of the verdict's intervals, as scripts/calibrate.py measured it."""
    with CALIBRATION.open(encoding="utf-8", newline="") as file:
        measured = [row for row in csv.DictReader(file) if row["check"] == check]
    if not measured:
        raise PluginError(f"{CALIBRATION.name} has no rows for {check!r}")
    rows = [f"| case | prompts | {check} | stated |", "| --- | --- | --- | --- |"]
    for row in measured:
        effect = (
            f", effect {float(row['effect_percent']):g} %" if float(row["effect_percent"]) else ""
        )
        rate = f"{float(row['rate']):.3f} [{float(row['low']):.3f}, {float(row['high']):.3f}]"
        rows.append(f"| {row['case']}{effect} | {row['prompts']} | {rate} | {row['stated']} |")
    return "\n".join(rows)


def _notebook(_: str | None) -> str:
    """The notebook's cells, as they are executed in the tests."""
    parts: list[str] = []
    for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            parts.append(f"```python\n{source}\n```")
        else:
            parts.append(re.sub(r"^# .+\n+", "", source))
    return "\n\n".join(parts)


_ANSWERS: dict[str, Callable[[Any], str]] = {
    "terms": _terms,
    "readme": _readme,
    "commands": _commands,
    "presets": _presets,
    "calibration": _calibration,
    "notebook": _notebook,
}
