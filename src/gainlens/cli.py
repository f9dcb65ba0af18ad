"""Flags -> spec -> compare -> exit status.

Exit status: 0 when the comparison ran, whatever its verdict; 2 for a user's mistake, with one line
on standard error; 130 on Ctrl-C.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import click
from pydantic import ValidationError

from gainlens.axes import CLASS_SELECTIONS, REDUCTIONS, SPLITS, Role
from gainlens.spec import (
    PRESETS,
    Backend,
    ComparisonSpec,
    Device,
    Dtype,
    ModelSpec,
    Rule,
    SweepHow,
    parse_ablation,
)
from gainlens.world import joined, started

EXAMPLES = (
    ("", "the shipped twins, offline, on a laptop"),
    ("--preset llama --device cuda", "the notebook's own models"),
    ("--short DIR --long NAME", "any two models, local or from the hub"),
    ("--prompts mine.jsonl --tokens 256", "your own texts, exact lengths"),
    ("--sweep 8 --theta 1e3 --theta 5e6", "which components, which theta it hangs on"),
    ("--ablate blocks.-1.hook_mlp_out=zero", "before and after, side by side"),
    ("--rescore result.json", "what an old result can and cannot say"),
)


class Taught(click.Command):
    """A command whose help leads with examples, under the name that it was called by."""

    def __init__(self, *args: Any, examples: Sequence[tuple[str, str]] = (), **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", {"help_option_names": ["-h", "--help"]})
        super().__init__(*args, **kwargs)
        self._examples = examples

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What it does, examples, then the usage and every option."""
        self.format_help_text(ctx, formatter)
        if self._examples:
            with formatter.section("Examples"):
                calls = [
                    (f"{ctx.command_path} {flags}".strip(), what) for flags, what in self._examples
                ]
                formatter.write_dl(calls, col_max=60)
        formatter.write_paragraph()
        self.format_usage(ctx, formatter)
        self.format_options(ctx, formatter)
        self.format_epilog(ctx, formatter)


def _estimand(text: str) -> dict[str, str]:
    """`ordinary/geomean` or `ordinary/geomean/logmean` as the fields of a Rule."""
    parts = text.split("/")
    known = {"token_class": CLASS_SELECTIONS, "reduction": REDUCTIONS, "split": SPLITS}
    if not 2 <= len(parts) <= 3 or any(
        part not in names for part, names in zip(parts, known.values(), strict=False)
    ):
        raise ValueError(
            f"--estimand {text!r} is not CLASS/REDUCTION or CLASS/REDUCTION/SPLIT, with a class of "
            f"{', '.join(CLASS_SELECTIONS)}, a reduction of {', '.join(REDUCTIONS)} and a split of "
            f"{', '.join(SPLITS)}"
        )
    return dict(zip(known, parts, strict=False))


def key_of(source: str, taken: Sequence[str]) -> str:
    """A model's key: the last part of its name, safe as a file name, and not taken yet."""
    key = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(source).name).strip(".-") or "model"
    number = 2
    while (numbered := key if number == 2 and key not in taken else f"{key}-{number}") in taken:
        number += 1
    return numbered


def models_of(
    preset: str | None,
    short: str | None,
    long: str | None,
    references: Sequence[str],
    controls: Sequence[str],
) -> tuple[ModelSpec, ...]:
    """The models of a comparison from the flags."""
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


def spec_of(flags: dict[str, Any]) -> ComparisonSpec:
    """The spec that a set of flags asks for; ValueError for what does not go together."""
    models = models_of(
        flags["preset"], flags["short"], flags["long"], flags["reference"], flags["control"]
    )
    keys = {model.role: model.key for model in reversed(models)}
    name = f"{keys['short']}-vs-{keys['long']}" if flags["short"] else flags["preset"] or "twins"
    rule = _estimand(flags["estimand"]) | {
        field: flags[field] for field in ("confidence", "min_prompts", "resamples", "seed")
    }
    passed = ("prompts", "tokens", "backend", "dtype", "device", "revision")
    return ComparisonSpec(
        **_intervention_fields(flags),
        name=name,
        models=models,
        rule=Rule.model_validate(rule),
        allow_extrapolation=flags["allow_extrapolation"],
        trust_remote_code=flags["trust_remote_code"],
        **{field: flags[field] for field in passed},
    )


def _intervention_fields(flags: dict[str, Any]) -> dict[str, Any]:
    given = {
        field: flags[field]
        for field in ("sweep", "sweep_how", "sweep_heads", "theta", "ablate", "controls")
        if flags[field]
    }
    if flags["no_interventions"]:
        if given:
            flag = f"--{next(iter(given)).replace('_', '-')}"
            raise ValueError(f"--no-interventions and {flag} exclude one another: give one")
        return {"sweep": 0, "theta": ()}
    return given | {"ablate": tuple(parse_ablation(text) for text in flags["ablate"])}


def _choice(literal: Any) -> click.Choice[str]:
    return click.Choice(list(get_args(literal)))


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--preset", type=click.Choice(list(PRESETS)), help="Models that are known here [default: twins]."),
    click.option("--short", metavar="M", help="Hub name or directory of the short-context model."),
    click.option("--long", metavar="M", help="Hub name or directory of the long-context model."),
    click.option("--reference", metavar="M", multiple=True, help="A further model, measured beside. Repeatable."),
    click.option("--control", metavar="M", multiple=True, help="A model of the 2 x 2 design. Repeatable."),
    click.option("--prompts", metavar="P", default="mixed", show_default=True, help="notebook, mixed, long, or a text or JSONL file, a prompt a line."),
    click.option("--tokens", metavar="N", type=click.IntRange(min=2), help="Prompts of exactly N tokens, cut or packed."),
    click.option("--estimand", metavar="C/R", default="ordinary/geomean", show_default=True, help="Token class and reduction that decide, fixed before the run; /SPLIT may follow."),
    click.option("--confidence", type=click.FloatRange(0.5, 1, min_open=True, max_open=True), default=0.95, show_default=True, help="Of every interval."),
    click.option("--min-prompts", metavar="N", type=click.IntRange(min=3), default=16, show_default=True, help="Fewer give UNDETERMINED."),
    click.option("--resamples", metavar="N", type=click.IntRange(min=200), default=2000, show_default=True, help="Of the bootstrap."),
    click.option("--seed", metavar="S", type=click.IntRange(min=0), default=0, show_default=True, help="Of the bootstrap."),
    click.option("--backend", type=_choice(Backend), default="auto", show_default=True, help="Which kind of model carries the hooks."),
    click.option("--dtype", type=_choice(Dtype), help="[default: float32 on CPU, the checkpoint's own on CUDA]"),
    click.option("--device", type=_choice(Device), default="auto", show_default=True),
    click.option("--revision", metavar="R", help="Branch, tag or commit of a hub model."),
    click.option("--sweep", metavar="K", type=click.IntRange(min=1), help="Ablate every component of the last K blocks in turn [default: 1]."),
    click.option("--sweep-how", type=_choice(SweepHow), multiple=True, help="By what: 0, or the mean over the prompts. Repeatable. [default: zero]"),
    click.option("--sweep-heads", is_flag=True, help="Each attention head in its turn as well."),
    click.option("--theta", metavar="T", type=float, multiple=True, help="Measure the same weights again under RoPE base T. Repeatable. [default: the short and the long model's]"),
    click.option("--ablate", metavar="SITE=HOW", multiple=True, help="Measure again with a site ablated, HOW in zero, mean, resample: blocks.-1.hook_mlp_out=zero. Repeated: together."),
    click.option("--controls", is_flag=True, help="Set massive activations to their mean and to 0, drop and double BOS."),
    click.option("--no-interventions", is_flag=True, help="Measure only: no sweep, no other theta."),
    click.option("--allow-extrapolation", is_flag=True, help="Measure beyond the context that a model was made for."),
    click.option("--trust-remote-code", is_flag=True, help="Run code that comes with a checkpoint. Off unless given."),
    click.option("--rescore", metavar="FILE", type=click.Path(path_type=Path), help="No model: what a result.json, or the notebook's own JSON, can and cannot say."),
    click.option("--out", metavar="DIR", type=click.Path(path_type=Path), help="Run folder [default: runs/<preset> or runs/<short>-vs-<long>]."),
    click.option("--figures", metavar="DIR", type=click.Path(path_type=Path), help="Figure folder [default: figures for the default run, else DIR/figures]."),
    click.option("--quiet", is_flag=True, help="No tables, no progress."),
    click.option("--json", "as_json", is_flag=True, help="The result on standard output, nothing else."),
)  # fmt: skip


def _with_options(function: Any) -> Any:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.command("compare", cls=Taught, examples=EXAMPLES)
@_with_options
def compare_command(**flags: Any) -> None:
    """Does the residual stream of a long-context model contract where a short-context one expands?

    Measures each model's residual stream block by block, splits every gain into attention and MLP,
    and says what can be said of the claim, and how far to trust it.
    """
    quiet = flags["quiet"] or flags["as_json"]
    if not started().first:
        if not flags["rescore"]:
            _help_compare(flags)
        return
    if flags["rescore"]:
        document = rescore_file(flags["rescore"], flags["out"], quiet)
    else:
        document = _compare(flags, quiet)
    if flags["as_json"]:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def _help_compare(flags: dict[str, Any]) -> None:
    """What every process but the first does: its share of the prompts; the first one writes."""
    from gainlens.quiet import chatter_silenced

    spec = spec_of(flags)
    with chatter_silenced(), joined():
        from gainlens.pipeline import compare

        compare(spec)


def _compare(flags: dict[str, Any], quiet: bool) -> dict[str, Any]:
    from gainlens.beside import helpers

    spec = spec_of(flags)
    with helpers(spec) as beside:
        return _measure_and_write(spec, flags, quiet, beside.measured)


def _measure_and_write(
    spec: ComparisonSpec, flags: dict[str, Any], quiet: bool, elsewhere: Callable[[str], Any]
) -> dict[str, Any]:
    from gainlens import rendering, report, store
    from gainlens.quiet import chatter_silenced
    from gainlens.staging import run_folder

    out: Path = flags["out"] or Path("runs") / spec.name
    default_run = spec.name == "twins" and flags["out"] is None
    figures: Path = flags["figures"] or (Path("figures") if default_run else out / "figures")
    rendering.check_writable(out)
    with (
        run_folder(out),
        chatter_silenced(),
        report.progress(quiet, len(spec.models)) as watch,
        joined(),
    ):
        from gainlens.pipeline import compare
        from gainlens.resume import Partials

        with Partials(out, spec, watch.tell) as keep:
            comparison = compare(spec, watch, keep, elsewhere)
            watch.phase("drawing figures, writing tables")
            written = rendering.write_run(out, figures, comparison)
    if not quiet:
        report.print_comparison(comparison, written)
    return store.result_json(comparison)


def rescore_file(file: Path, out: Path | None, quiet: bool) -> dict[str, Any]:
    """What an old result can say, written to DIR/result.json and, unless quiet, to the terminal."""
    from gainlens import report, store
    from gainlens.rescoring import rescore, to_json
    from gainlens.staging import run_folder

    score = rescore(file)
    document = {"rescore": to_json(score)}
    folder = out or Path("runs") / f"rescore-{key_of(file.stem, [])}"
    path = folder / store.RESULT
    with run_folder(folder):
        store.write_json(path, document)
    if not quiet:
        report.print_rescore(score, path)
    return document


def run(command: click.Command, arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status, a user's mistake as one line on standard error."""
    try:
        status = command.main(
            args=None if arguments is None else list(arguments), standalone_mode=False
        )
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        return _mistake(error.format_message())
    except ValidationError as error:
        return _mistake(error.errors()[0]["msg"].removeprefix("Value error, "))
    except ValueError as error:
        return _mistake(str(error))
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return 130
    return status if isinstance(status, int) else 0


def _mistake(sentence: str) -> int:
    who = "error" if started().first else f"error in process {started().rank}"
    click.echo(f"{who}: {' '.join(sentence.split())}", err=True)
    return 2


def main(command: click.Command = compare_command) -> None:
    """Run a command from the shell; scripts/compare.py runs this one."""
    # Threads that wait by spinning take ten times the time on a machine that does something else.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    sys.exit(run(command))
