"""TODO: cli.options."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import click

from gainlens.core.presets import PRESETS
from gainlens.core.spec import Backend, Device, Dtype, SweepHow


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
    click.option("--quiet", is_flag=True, help="Only the answer's line, no progress."),
    click.option("--verbose", is_flag=True, help="Every reason and every table behind the answer."),
    click.option("--json", "as_json", is_flag=True, help="The result on standard output, nothing else."),
)  # fmt: skip


def with_options(function: Any) -> Any:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
