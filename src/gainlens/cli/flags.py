"""Turn the flags of `compare` into a spec."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from gainlens.cli.options import json_option, options_of
from gainlens.core.names import key_of
from gainlens.core.presets import PRESETS
from gainlens.core.spec import ComparisonSpec, ModelSpec, Rule
from gainlens.core.vocabulary import REDUCTIONS, SPLITS, TOKEN_CLASSES, Role

RULE_FIELDS: Final = ("confidence", "min_prompts", "resamples", "seed")
MEASURE_FIELDS: Final = (
    "prompts",
    "tokens",
    "long_prompts",
    "backend",
    "dtype",
    "device",
    "batch_tokens",
    "revision",
)
INTERVENTION_FIELDS: Final = ("sweep", "sweep_how", "sweep_heads", "theta", "ablate", "controls")
PERMISSION_FIELDS: Final = ("allow_extrapolation", "trust_remote_code")
OUTPUT_FLAGS: Final = ("out", "figures", "quiet", "verbose", "as_json")
"""Flags that say where and how the result is shown; they are no part of what was run."""
_FOLDER = click.Path(path_type=Path)

COMPARE_OPTIONS: Final = (
    click.option("--preset", type=click.Choice(list(PRESETS)), help="Known models. [default: twins]"),
    click.option("--short", metavar="MODEL", help="Hub name or directory of the short-context model."),
    click.option("--long", metavar="MODEL", help="Hub name or directory of the long-context model."),
    click.option("--reference", metavar="MODEL", multiple=True, help="A further model to measure. Repeatable."),
    click.option("--control", metavar="MODEL", multiple=True, help="A model of the 2 x 2 design. Repeatable."),
    *options_of(ComparisonSpec, "prompts", "tokens"),
    click.option("--estimand", metavar="CLASS/REDUCTION", default="ordinary/geomean", show_default=True, help="What decides, fixed before the run; /SPLIT may follow."),
    *options_of(Rule, *RULE_FIELDS),
    *options_of(ComparisonSpec, *MEASURE_FIELDS[2:], *INTERVENTION_FIELDS),
    click.option("--no-interventions", is_flag=True, help="Measure only: ablate nothing, swap no theta."),
    *options_of(ComparisonSpec, *PERMISSION_FIELDS),
    click.option("--rescore", metavar="FILE", type=_FOLDER, help="Load no model; say what an old result.json can carry."),
    click.option("--out", metavar="DIR", type=_FOLDER, help="Run folder. [default: runs/<preset> or runs/<short>-vs-<long>]"),
    click.option("--figures", metavar="DIR", type=_FOLDER, help="Figure folder. [default: DIR/figures]"),
    click.option("--quiet", is_flag=True, help="Print only the answer's line."),
    click.option("--verbose", is_flag=True, help="Print every reason and every table."),
    json_option,
)  # fmt: skip


def spec_of(flags: Mapping[str, Any]) -> ComparisonSpec:
    """Return the spec that the flags ask for; raise ValueError for flags that exclude another."""
    models = models_of(
        flags["preset"], flags["short"], flags["long"], flags["reference"], flags["control"]
    )
    keys = {model.role: model.key for model in reversed(models)}
    name = f"{keys['short']}-vs-{keys['long']}" if flags["short"] else flags["preset"] or "twins"
    return ComparisonSpec(
        name=name,
        models=models,
        rule=Rule(**_estimand(flags["estimand"]), **given(flags, RULE_FIELDS)),
        **given(flags, (*MEASURE_FIELDS, *PERMISSION_FIELDS)),
        **_interventions(flags),
    )


def models_of(
    preset: str | None,
    short: str | None,
    long: str | None,
    references: Sequence[str],
    controls: Sequence[str],
) -> tuple[ModelSpec, ...]:
    """Return the models of a comparison; raise ValueError if a pair and a preset are mixed."""
    if (short is None) != (long is None):
        alone, missing = ("--short", "--long") if short else ("--long", "--short")
        raise ValueError(f"{alone} needs {missing}: a comparison takes one model of each")
    if short is not None and preset is not None:
        raise ValueError("--preset and --short/--long exclude one another: give one or the other")
    models: list[ModelSpec] = [] if short and long else list(PRESETS[preset or "twins"])
    pair = (short, long) if short and long else ()
    sources: dict[Role, Sequence[str]] = {
        "short": pair[:1],
        "long": pair[1:],
        "reference": references,
        "control": controls,
    }
    for role, given in sources.items():
        for source in given:
            key = key_of(source, [model.key for model in models])
            models.append(ModelSpec(key=key, hf_name=source, role=role))
    return tuple(models)


def command_line(context: click.Context) -> str:
    """Return the command that repeats a run: its flags, without those that only show the result."""
    words = context.command_path.split()
    for parameter in context.command.params:
        name = parameter.name or ""
        typed = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if not typed or name in OUTPUT_FLAGS:
            continue
        value = context.params[name]
        if isinstance(parameter, click.Option) and parameter.is_flag:
            words.append(parameter.opts[0])
            continue
        items = value if isinstance(value, tuple) else (value,)
        if isinstance(parameter, click.Argument):
            words += map(str, items)
            continue
        for item in items:
            words += [parameter.opts[0], str(item)]
    return shlex.join(words)


def given(flags: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """Return the fields whose flags were given; the spec has the defaults of the others."""
    return {field: flags[field] for field in fields if flags[field] not in (None, ())}


def _estimand(text: str) -> dict[str, Any]:
    """Read `ordinary/geomean` or `ordinary/geomean/logmean` as fields of a Rule."""
    parts = text.split("/")
    known = {"token_class": TOKEN_CLASSES, "reduction": REDUCTIONS, "split": SPLITS}
    if not 2 <= len(parts) <= 3 or any(
        part not in names for part, names in zip(parts, known.values(), strict=False)
    ):
        raise ValueError(
            f"--estimand {text!r} is not CLASS/REDUCTION or CLASS/REDUCTION/SPLIT, with a class of "
            f"{', '.join(TOKEN_CLASSES)}, a reduction of {', '.join(REDUCTIONS)} and a split of "
            f"{', '.join(SPLITS)}"
        )
    return dict(zip(known, parts, strict=False))


def _interventions(flags: Mapping[str, Any]) -> dict[str, Any]:
    asked = given(flags, INTERVENTION_FIELDS)
    if asked.get("sweep") == 0:
        raise ValueError("--sweep 0 ablates nothing: give 1 or more, or --no-interventions")
    if not flags["no_interventions"]:
        return asked
    if asked:
        flag = f"--{next(iter(asked)).replace('_', '-')}"
        raise ValueError(f"--no-interventions and {flag} exclude one another: give one")
    return {"sweep": 0, "theta": ()}
