"""Define the `layers` command: which blocks matter, and in which order they could be removed."""

from typing import TYPE_CHECKING, Any, Final

import click

from gainlens.cli.flags import given
from gainlens.cli.measure import OUTPUT_OPTIONS, write_and_print
from gainlens.cli.options import ExamplesCommand, options_of, with_options
from gainlens.core.names import key_of
from gainlens.core.presets import TWIN_PREFIX
from gainlens.core.spec import ComparisonSpec, MeasureSpec, Rule

if TYPE_CHECKING:
    from gainlens.runs.measurement import Measurement

EXAMPLES: Final = (
    ("gpt2", "what each block does, and what skipping it costs"),
    ("DIR --prompts mine.txt --tokens 256", "on your own texts"),
)
_FIELDS: Final = (
    "prompts", "long_prompts", "backend", "dtype", "device", "batch_tokens", "revision",
    "allow_extrapolation", "trust_remote_code",
)  # fmt: skip
_RULE: Final = ("confidence", "resamples", "seed")


@click.command("layers", cls=ExamplesCommand, examples=EXAMPLES)
@click.argument("model", metavar="MODEL")
@with_options(
    (*options_of(MeasureSpec, *_FIELDS), *options_of(ComparisonSpec, "tokens"), *OUTPUT_OPTIONS)
)
@click.pass_context
def layers_command(context: click.Context, model: str, **flags: Any) -> None:
    """Measure which blocks of a model matter, and in which order they could be removed.

    Each block's influence, angle and write ratios stand beside its skip loss: the loss if the block
    writes nothing, minus the loss of the whole model.  Blocks that the prompts cannot tell apart
    tie, and no order is given among them.
    """
    spec = MeasureSpec(
        name=key_of(model.removeprefix(TWIN_PREFIX), []),
        models=(model,),
        tokens=() if flags["tokens"] is None else (flags["tokens"],),
        rule=Rule(**given(flags, _RULE)),
        **given(flags, _FIELDS),
    )

    def run() -> "Measurement":
        from gainlens.runs.layers import layers

        return layers(model, tokens=flags["tokens"], spec=spec)

    write_and_print(context, flags, spec, run)
