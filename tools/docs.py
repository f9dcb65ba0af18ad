"""Write the definitions, commands and presets into the pages of docs/, where a reader finds them.

    python tools/docs.py            # rewrite every marked region
    python tools/docs.py --check    # exit with status 1 if a region is not up to date

A region starts with `<!-- KIND: ARGUMENTS -->` and ends with `<!-- end -->`.  Everything between
them is generated.  KIND is terms (names of the glossary, or none for all), metrics, commands,
presets, calibration (intervals or contrasts, and one kind of check), claims (the catalogue),
verdicts (claims.csv), or cells, trends, controls and control_trends (the training experiment).
"""

import csv
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pandas as pd

from gainlens.claims.claim import Claim, catalogue
from gainlens.claims.dose_response import (
    SHIPPED,
    control_effects,
    control_trends,
    read_design,
    trends,
)
from gainlens.claims.intervals import seed_interval
from gainlens.claims.sentences import subject_of
from gainlens.claims.wording import signed
from gainlens.cli.commands import gainlens_command
from gainlens.core.glossary import GLOSSARY
from gainlens.core.presets import PRESETS
from gainlens.metrics.builtin import BUILT_IN
from gainlens.records.interval import Interval

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CLAIMS = ROOT / "src/gainlens/data/claims.csv"
CALIBRATION = ROOT / "src/gainlens/data/calibration.csv"
POSITIONS = {
    "all ordinary": "", "position 0": "0", "positions 1 to 3": "1-3", "positions 4 to 15": "4-15",
    "positions 16 to 63": "16-63", "positions 64 to 127": "64-127", "from position 128 on": "128-",
}  # fmt: skip
"""Bins of the training table, by what the page calls them."""
HELP_WIDTH = 90
"""Characters per line of a command's help."""
REGION = re.compile(r"^<!-- (\w+)(?:: (.+?))? -->\n.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)


def written(markdown: str) -> str:
    """Return a page with every region generated again."""

    def generate(region: re.Match[str]) -> str:
        kind, argument = region[1], region[2] or ""
        head = f"<!-- {kind}: {argument} -->" if argument else f"<!-- {kind} -->"
        return f"{head}\n{GENERATORS[kind](argument)}\n<!-- end -->"

    return REGION.sub(generate, markdown)


def terms(names: str) -> str:
    """Return a table of definitions with their units and sources."""
    rows = ["| name | meaning | unit |", "| --- | --- | --- |"]
    for name in names.split() or sorted(GLOSSARY):
        term = GLOSSARY[name]
        source = "" if term.source == "gainlens" else f" *({term.source})*"
        meaning = f"{term.label}: {term.meaning}{source}".replace("|", r"\|")
        unit = term.unit.replace("|", r"\|")
        rows.append(f"| `{name}` | {meaning} | {unit} |")
    return "\n".join(rows)


def metrics(_: str) -> str:
    """Return a table of the built-in metrics."""
    rows = [
        "| metric | definition | unit | no change | source |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, metric in BUILT_IN.items():
        definition = metric.definition.replace("|", r"\|")
        neutral = "" if metric.neutral is None else f"{metric.neutral:g}"
        rows.append(f"| `{name}` | {definition} | {metric.unit} | {neutral} | {metric.source} |")
    return "\n".join(rows)


def commands(_: str) -> str:
    """Return what each command prints for --help."""
    return "\n\n".join(
        f"### {words}\n\n```text\n{context.command.get_help(context)}\n```"
        for words, context in command_contexts("gainlens", gainlens_command, None)
    )


def command_contexts(
    name: str, command: click.Command, parent: click.Context | None
) -> Iterator[tuple[str, click.Context]]:
    """Yield a command and all its subcommands, each with the words that call it."""
    settings = {"terminal_width": HELP_WIDTH, **command.context_settings}
    context = click.Context(command, parent=parent, info_name=name, **settings)
    yield context.command_path, context
    if isinstance(command, click.Group):
        for word in command.list_commands(context):
            subcommand = command.get_command(context, word)
            assert subcommand is not None
            yield from command_contexts(word, subcommand, context)


def presets(_: str) -> str:
    """Return a table of the presets' models."""
    rows = ["| preset | role | model | context | RoPE theta |", "| --- | --- | --- | --- | --- |"]
    for preset, models in PRESETS.items():
        for model in models:
            context = "" if model.context_length is None else f"{model.context_length:,}"
            theta = "" if model.expected_rope_theta is None else f"{model.expected_rope_theta:,.0f}"
            rows.append(f"| `{preset}` | {model.role} | `{model.hf_name}` | {context} | {theta} |")
    return "\n".join(rows)


def calibration(argument: str) -> str:
    """Return measured rates from scripts/calibrate.py's table; a column per number of units.

    argument: `intervals` or `contrasts`, and the kinds of check, such as `coverage`.
    """
    which, _, check = argument.partition(" ")
    with CALIBRATION.open(encoding="utf-8", newline="") as file:
        measured = [
            row
            for row in csv.DictReader(file)
            if row["check"] == check and (row["contrast"] == "interval") == (which == "intervals")
        ]
    lines: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in measured:
        key = (row["contrast"], row["case"], row["effect"], row["unit"])
        lines.setdefault(key[which == "intervals" :], []).append(row)
    head = ["contrast"] if which == "contrasts" else []
    head += ["case", "effect", "unit", f"{check} (number of units)", "stated", "missed at"]
    rows = [f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |"]
    for key, found in lines.items():
        rates = ", ".join(f"{float(row['rate']):.3f} ({row['n']})" for row in found)
        stated = [row["stated"] for row in found if row["stated"] != "measured"]
        missed = ", ".join(row["n"] for row in found if row["met"] == "no")
        rows.append(f"| {' | '.join(key)} | {rates} | {''.join(stated[:1])} | {missed} |")
    return "\n".join(rows)


def claims(_: str) -> str:
    """Return a section per claim of the catalogue: statement, source, departures, estimand."""
    return "\n\n".join(
        f"### {name}\n\n{claim.statement}\n\n"
        f"- Measured: {subject_of(claim)}\n"
        f"- Predicted: {claim.contrast.prediction or signs_of(claim)}\n"
        f"- Source: {claim.source}\n"
        f"- Departures: {claim.departures or 'none'}"
        for name, claim in catalogue().items()
    )


def signs_of(claim: Claim) -> str:
    """Return what each pair of signs means."""
    return ", ".join(f"`{signs}` {outcome}" for signs, outcome in claim.contrast.outcomes.items())


def verdicts(_: str) -> str:
    """Return what became of each claim on each model, from scripts/claims.py's table."""
    with CLAIMS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    lines = ["| claim | models | outcome | robust | measured |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| `{row['claim']}` | {row['models']} | {row['outcome']} | {row['robust']} "
        f"| {row['measured']} |"
        for row in rows
    ]
    return "\n".join(lines)


def trend_table(at: str) -> str:
    """Return the trends over the training experiment, at its end or at equal loss, a row per bin
    of positions."""
    rows = ["| tokens | context | theta | interaction |", "| --- | --- | --- | --- |"]
    for title, positions in POSITIONS.items():
        found = trends(read_design(positions=positions, equal_loss=at == "equal loss")).values()
        rows.append(f"| {title} | {' | '.join(map(with_ends, found))} |")
    return "\n".join(rows)


def control_trend_table(at: str) -> str:
    """Return what the controls say together, a row per bin of positions."""
    rows = ["| tokens | more first positions | context |", "| --- | --- | --- |"]
    for title, positions in POSITIONS.items():
        found = control_trends(positions=positions, equal_loss=at == "equal loss")
        rows.append(
            f"| {title} | {with_ends(found.first_positions)} | {with_ends(found.context)} |"
        )
    return "\n".join(rows)


def control_table(at: str) -> str:
    """Return what each control says of all ordinary tokens, a row per context."""
    rows = [
        "| context | control minus its context | control minus context 256 |",
        "| --- | --- | --- |",
    ]
    for context, one in control_effects(equal_loss=at == "equal loss").items():
        cells = f"{with_ends(one.same_context)} | {with_ends(one.shortest_context)}"
        rows.append(f"| {context:,} | {cells} |")
    return "\n".join(rows)


def with_ends(interval: Interval) -> str:
    """Return an estimate and its interval, with three decimals."""
    low, high = signed(interval.low, 3), signed(interval.high, 3)
    return f"{signed(interval.estimate, 3)} [{low}, {high}]"


CELL_MEASURES = (
    ("log_gain", "log gain"), ("attention", "attention"), ("mlp", "MLP"),
    ("bos_log_gain", "position 0"), ("notebook_last_gain", "notebook's number"),
    ("sink", "sink"), ("loss", "loss at own context"),
)  # fmt: skip


def cells(group: str) -> str:
    """Return the cells of groups of the training experiment at the end of training.

    Every entry is the mean over seeds with half of its 95 % interval (Student's t).
    """
    table = pd.read_parquet(SHIPPED)
    table = table.loc[table["group"].str.startswith(group) & (table["positions"] == "")]
    cell = ["group", "context", "base_theta", "theta"]
    titles = [title for _, title in CELL_MEASURES]
    rows = [
        f"| group | context | theta | seeds | {' | '.join(titles)} |",
        "| --- " * (len(titles) + 4) + "|",
    ]
    for (name, context, base, theta), own in table.groupby(cell, observed=True):
        last = own.loc[own["step"] == own["step"].max()]
        came = f"{base:,.0f} to " if base not in (0, theta) else ""
        entries = [str(last["seed"].nunique())]
        for measure, _ in CELL_MEASURES:
            found = last.loc[last["measure"] == measure]
            if measure == "sink":
                found = found.loc[found["block"] == -1]  # of all blocks
            elif measure == "loss":
                found = found.loc[found["length"] == context]
            else:
                found = found.loc[found["block"] == found["block"].max()]
            one = seed_interval(found["value"].to_numpy("float64"))
            entries.append(f"{one.estimate:.3f} ± {one.high - one.estimate:.3f}")
        rows.append(f"| {name} | {context:,} | {came}{theta:,.0f} | {' | '.join(entries)} |")
    return "\n".join(rows)


GENERATORS = {
    "cells": cells,
    "trends": trend_table,
    "control_trends": control_trend_table,
    "controls": control_table,
    "claims": claims,
    "verdicts": verdicts,
    "terms": terms,
    "metrics": metrics,
    "commands": commands,
    "presets": presets,
    "calibration": calibration,
}


def main() -> None:
    """Write every page, or say which pages are not up to date."""
    stale: list[Path] = []
    for page in sorted(DOCS.rglob("*.md")):
        before = page.read_text("utf-8")
        after = written(before)
        if after != before:
            stale.append(page)
            if "--check" not in sys.argv:
                page.write_text(after, "utf-8")
    if stale and "--check" in sys.argv:
        names = ", ".join(str(page.relative_to(ROOT)) for page in stale)
        sys.exit(f"not up to date: {names}; run python tools/docs.py")


if __name__ == "__main__":
    main()
