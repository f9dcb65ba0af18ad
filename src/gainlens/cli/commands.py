"""Define the `gainlens` command: measure, layers, compare, rescore, report and more."""

from pathlib import Path
from typing import Any

import click
from click.shell_completion import get_completion_class

from gainlens.cli.compare import compare_command, main
from gainlens.cli.layers import layers_command
from gainlens.cli.measure import measure_command
from gainlens.cli.options import ExamplesCommand, json_option, print_json
from gainlens.cli.testing import claims_command, test_command

EXAMPLES = (
    ("measure gpt2", "one model: every block's gain, its parts, figures and a page"),
    ("layers gpt2", "which blocks matter, and in which order they could be removed"),
    ("compare", "the shipped twins: verdict, figures, report.html in runs/twins"),
    ("compare --short DIR --long NAME", "any two models, local or from the hub"),
    ("test final-block-jump model=gpt2", "a claim of the literature on a model of yours"),
    ("claims", "the claims that can be tested"),
    ("models", "the presets, and what is known of each model"),
    ("weights DIR NAME", "W_U and RoPE alone, of any size, without a GPU"),
    ("report runs/twins", "page and figures again, from what was measured"),
    ("rerun runs/twins", "the same comparison again: is every number the same?"),
    ("rescore result.json", "what an old result can and cannot say"),
)
_DIFFERENCES_SHOWN = 20
_FOLDER = click.Path(path_type=Path)


class ExamplesGroup(click.Group):
    """Define a group of commands whose help leads with examples."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what the command is for, examples, and the commands."""
        self.format_help_text(ctx, formatter)
        with formatter.section("Examples"):
            formatter.write_dl([(f"gainlens {call}", what) for call, what in EXAMPLES], col_max=60)
        self.format_options(ctx, formatter)


@click.group(cls=ExamplesGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gainlens")
def gainlens_command() -> None:
    """Measure what each transformer block does to the residual stream, and test claims about it."""


gainlens_command.add_command(compare_command)
gainlens_command.add_command(measure_command)
gainlens_command.add_command(test_command)
gainlens_command.add_command(claims_command)
gainlens_command.add_command(layers_command)


@gainlens_command.command(
    cls=ExamplesCommand,
    examples=[
        ("result.json", "the notebook's JSON, or ours"),
        ("results/*.json", "several files: the numbers of one model side by side"),
    ],
)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=_FOLDER)
@click.option(
    "--out", metavar="DIR", type=_FOLDER, help="[default: runs/rescore-FILE, runs/rescore]"
)
@click.option("--quiet", is_flag=True, help="No tables.")
@json_option
def rescore(files: tuple[Path, ...], out: Path | None, quiet: bool, as_json: bool) -> None:
    """Say what old results can and cannot say.  No model is loaded.

    Reads the notebook's JSON, a result.json, and the result files of the notebook's neighbours that
    hold gains, norms or spectra.
    """
    from gainlens.cli.rescore import rescore_file, rescore_files

    if len(files) == 1:
        document, status = rescore_file(files[0], out, quiet or as_json), 0
    else:
        document, status = rescore_files(files, out, quiet or as_json)
    if as_json:
        print_json(document)
    click.get_current_context().exit(status)


@gainlens_command.command(cls=ExamplesCommand, examples=[("runs/twins", "where compare wrote")])
@click.argument("folder", type=_FOLDER)
@click.option("--figures", metavar="DIR", type=_FOLDER, help="[default: DIR/figures]")
@click.option("--quiet", is_flag=True, help="Only the answer's line.")
@click.option("--verbose", is_flag=True, help="Every reason and every table behind the answer.")
@json_option
def report(folder: Path, figures: Path | None, quiet: bool, verbose: bool, as_json: bool) -> None:
    """Draw page, tables and figures of a run again from what it measured.  No model is loaded."""
    from gainlens.report.terminal import print_answer, print_comparison
    from gainlens.results.reading import check_run, read_run
    from gainlens.results.result_json import result_json
    from gainlens.results.run_folder import run_folder
    from gainlens.runs import writing as rendering

    check_run(folder)  # no lock, and no folder, if there is no run
    with run_folder(folder):
        comparison = read_run(folder)
        written = rendering.write_run(folder, figures or folder / "figures", comparison)
    if as_json:
        print_json(result_json(comparison))
    elif quiet:
        print_answer(comparison)
    else:
        print_comparison(comparison, written, verbose=verbose)


@gainlens_command.command(
    cls=ExamplesCommand, examples=[("DIR meta-llama/Llama-3.1-70B", "side by side")]
)
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option("--revision", metavar="R", help="Branch, tag or commit of hub models.")
@json_option
def weights(models: tuple[str, ...], revision: str | None, as_json: bool) -> None:
    """Compare W_U and RoPE alone: of each model one shard is read, and no GPU is needed."""
    from gainlens.cli.listing import print_weights, weights_json
    from gainlens.models.quiet import chatter_silenced
    from gainlens.weights.report import weights_report

    with chatter_silenced():
        found = {model: weights_report(model, revision=revision) for model in models}
    if as_json:
        print_json(weights_json(found))
    else:
        print_weights(found)


@gainlens_command.command(cls=ExamplesCommand, examples=[("runs/twins", "into runs/twins-rerun")])
@click.argument("folder", type=_FOLDER)
@click.option("--out", metavar="DIR", type=_FOLDER, help="[default: FOLDER-rerun]")
@click.option("--quiet", is_flag=True, help="No progress.")
@json_option
def rerun(folder: Path, out: Path | None, quiet: bool, as_json: bool) -> None:
    """Compare again as a run folder says, and name every number that differs.

    The exit status is 0 if result.json is the same to the bit, date and timing aside, else 1.
    """
    from gainlens.models.quiet import chatter_silenced
    from gainlens.report.progress import progress
    from gainlens.results.reading import read_run
    from gainlens.results.values import to_json

    models = len(read_run(folder).spec.models)
    with chatter_silenced(), progress(quiet or as_json, models) as watch:
        from gainlens.runs.rerun import rerun as repeat

        found = repeat(folder, out or folder.with_name(f"{folder.name}-rerun"), watch, _tell)
    if as_json:
        print_json(
            to_json(
                {
                    "same": found.same,
                    "largest": found.largest,
                    "differences": found.differences,
                    "caveats": found.caveats,
                }
            )
        )
        click.get_current_context().exit(int(not found.same))
    for caveat in found.caveats:
        click.echo(f"not the same to begin with: {caveat}")
    if found.same:
        click.echo("every number is the same to the bit, date and timing aside")
        return
    click.echo(
        f"{len(found.differences)} values differ, numbers by at most {found.largest:.1e} (relative)"
    )
    for one in found.differences[:_DIFFERENCES_SHOWN]:
        click.echo(f"  {one.place}: {one.before} -> {one.after}")
    click.get_current_context().exit(1)


def _tell(sentence: str) -> None:
    click.echo(sentence, err=True)


@gainlens_command.command(cls=ExamplesCommand, examples=[("", "all of them")])
@json_option
def models(as_json: bool) -> None:
    """List the presets, and what is known of each model."""
    from gainlens.cli.listing import models_json, print_models

    if as_json:
        print_json(models_json())
    else:
        print_models()


@gainlens_command.command(
    cls=ExamplesCommand, examples=[("bash >> ~/.bashrc", "for bash, zsh or fish")]
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes this command's words in a shell."""
    kind: Any = get_completion_class(shell)
    click.echo(kind(gainlens_command, {}, "gainlens", "_GAINLENS_COMPLETE").source())


def run_command() -> None:
    """Run the console script."""
    main(gainlens_command)
