"""Define the `measure` command: flags -> spec -> measurement -> run folder, page, terminal."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from gainlens.cli.flags import command_line, given
from gainlens.cli.options import ExamplesCommand, options_of, with_options
from gainlens.core.names import key_of
from gainlens.core.presets import TWIN_PREFIX
from gainlens.core.spec import MeasureSpec, Rule

if TYPE_CHECKING:
    from gainlens.runs.measurement import Measurement

EXAMPLES: Final = (
    ("gpt2", "one model: blocks, heads, figures, page"),
    ("BASE TUNED --metric angle", "two models: the paired difference first"),
    ("DIR --tokens 64,256,1024", "a curve over prompt lengths"),
    ("--series DIR DIR DIR", "checkpoints along training"),
    ("--series NAME@step1000,step2000", "the same, as revisions of a hub model"),
)
_FIELDS: Final = (
    "prompts", "long_prompts", "metric", "heads", "series", "backend", "dtype", "device", "batch_tokens",
    "revision", "sweep", "sweep_how", "sweep_heads", "theta", "ablate", "allow_extrapolation", "trust_remote_code",
)  # fmt: skip
_FOLDER = click.Path(path_type=Path)
OUTPUT_OPTIONS: Final = (
    *options_of(Rule, "confidence", "resamples", "seed"),
    click.option("--out", metavar="DIR", type=_FOLDER, help="Run folder. [default: runs/<model>]"),
    click.option("--figures", metavar="DIR", type=_FOLDER, help="Figure folder. [default: DIR/figures]"),
    click.option("--quiet", is_flag=True, help="Print only the answer's line."),
    click.option("--json", "as_json", is_flag=True, help="Print only the result as JSON."),
)  # fmt: skip
_OPTIONS: Final = (
    *options_of(MeasureSpec, *_FIELDS),
    click.option("--tokens", metavar="N,N,...", help="Prompts of exactly N tokens; several N give a curve."),
    *OUTPUT_OPTIONS,
)  # fmt: skip


@click.command("measure", cls=ExamplesCommand, examples=EXAMPLES)
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@with_options(_OPTIONS)
@click.pass_context
def measure_command(context: click.Context, models: tuple[str, ...], **flags: Any) -> None:
    """Measure what each block of a model does to the residual stream, and by which component.

    Measures one model or many on the same prompts, without a claim.  Of two models the paired
    difference comes first, the second minus the first.
    """
    from gainlens.metrics.registry import metric_named

    spec = spec_of(models, flags)
    for name in spec.metric:
        metric_named(name)

    def run() -> "Measurement":
        from gainlens.runs.measure import measure

        return measure(
            spec.models, tokens=spec.tokens, series=spec.series, heads=spec.heads, spec=spec
        )

    write_and_print(context, flags, spec, run)


def write_and_print(
    context: click.Context,
    flags: Mapping[str, Any],
    spec: MeasureSpec,
    run: "Callable[[], Measurement]",
) -> None:
    """Measure, write the run folder, and print the answer, the tables or the JSON."""
    from gainlens.models.quiet import chatter_silenced
    from gainlens.results.run_folder import check_writable, run_folder

    out: Path = flags["out"] or Path("runs") / spec.name
    check_writable(out)
    with run_folder(out), chatter_silenced():
        from gainlens.report.measurement import print_line, print_measurement
        from gainlens.runs.measurement_folder import measurement_json, write_measurement

        measurement = replace(run(), command=command_line(context))
        figures = flags["figures"] or out / "figures"
        written = write_measurement(out, figures, measurement, spec.metric)
    if flags["as_json"]:
        document = measurement_json(measurement, spec.metric)
        click.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
    elif flags["quiet"]:
        print_line(measurement.answer)
    else:
        print_measurement(
            measurement.answer, measurement.shown_tables, written, measurement.seconds
        )


def spec_of(models: tuple[str, ...], flags: dict[str, Any]) -> MeasureSpec:
    """Return the spec that the flags ask for."""
    sources = tuple(source for model in models for source in _revisions(model))
    keys: list[str] = []
    for source in sources:
        keys.append(key_of(source.removeprefix(TWIN_PREFIX), keys))
    return MeasureSpec(
        name=keys[0] if len(keys) == 1 else f"{keys[0]}-and-{len(keys) - 1}-more",
        models=sources,
        tokens=lengths_of(flags["tokens"]),
        rule=Rule(**given(flags, ("confidence", "resamples", "seed"))),
        **given(flags, _FIELDS),
    )


def _revisions(model: str) -> list[str]:
    """Split NAME@rev1,rev2 into one source per revision."""
    name, at, revisions = model.partition("@")
    if not at or Path(model).exists():
        return [model]
    return [f"{name}@{revision}" for revision in revisions.split(",")]


def lengths_of(text: str | None) -> tuple[int, ...]:
    """Read `64,256,1024`; raise ValueError for anything but whole numbers."""
    if text is None:
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"--tokens takes one prompt length or several, such as 64,256,1024; got {text!r}"
        ) from None
