"""Flags -> spec -> compare -> exit status.

Exit status: 0 when the comparison ran, whatever its verdict; 2 for a user's mistake, with one line
on standard error; 130 on Ctrl-C.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from gainlens.cli.flags import key_of, spec_of
from gainlens.cli.options import Taught, with_options
from gainlens.core.spec import ComparisonSpec
from gainlens.models.processes import joined, started

EXAMPLES = (
    ("", "the shipped twins, offline, on a laptop"),
    ("--preset llama --device cuda", "the notebook's own models"),
    ("--short DIR --long NAME", "any two models, local or from the hub"),
    ("--prompts mine.jsonl --tokens 256", "your own texts, exact lengths"),
    ("--sweep 8 --theta 1e3 --theta 5e6", "which components, which theta it hangs on"),
    ("--ablate blocks.-1.hook_mlp_out=zero", "before and after, side by side"),
    ("--rescore result.json", "what an old result can and cannot say"),
)


@click.command("compare", cls=Taught, examples=EXAMPLES)
@with_options
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
    from gainlens.models.quiet import chatter_silenced

    spec = spec_of(flags)
    with chatter_silenced(), joined():
        from gainlens.runs.pipeline import compare

        compare(spec)


def _compare(flags: dict[str, Any], quiet: bool) -> dict[str, Any]:
    from gainlens.runs.workers import helpers

    spec = spec_of(flags)
    with helpers(spec) as beside:
        return _measure_and_write(spec, flags, quiet, beside.measured)


def _measure_and_write(
    spec: ComparisonSpec, flags: dict[str, Any], quiet: bool, elsewhere: Callable[[str], Any]
) -> dict[str, Any]:
    from gainlens.models.quiet import chatter_silenced
    from gainlens.report.progress import progress
    from gainlens.report.terminal import print_answer, print_comparison
    from gainlens.results import result_json as store
    from gainlens.results.run_folder import run_folder
    from gainlens.runs import writing as rendering

    out: Path = flags["out"] or Path("runs") / spec.name
    default_run = spec.name == "twins" and flags["out"] is None
    figures: Path = flags["figures"] or (Path("figures") if default_run else out / "figures")
    rendering.check_writable(out)
    with (
        run_folder(out),
        chatter_silenced(),
        progress(quiet, len(spec.models)) as watch,
        joined(),
    ):
        from gainlens.runs.pipeline import compare
        from gainlens.runs.resume import Partials

        with Partials(out, spec, watch.tell) as keep:
            comparison = compare(spec, watch, keep, elsewhere)
            watch.phase("drawing figures, writing tables")
            written = rendering.write_run(out, figures, comparison)
    if not quiet:
        print_comparison(comparison, written, verbose=flags["verbose"])
    elif not flags["as_json"]:
        print_answer(comparison)
    return store.result_json(comparison)


def rescore_file(file: Path, out: Path | None, quiet: bool) -> dict[str, Any]:
    """What an old result can say, written to DIR/result.json and, unless quiet, to the terminal."""
    from gainlens.notebook.rescoring import rescore, to_json
    from gainlens.report import terminal as report
    from gainlens.results.files import write_json
    from gainlens.results.run_folder import RESULT, run_folder

    score = rescore(file)
    document = {"rescore": to_json(score)}
    folder = out or Path("runs") / f"rescore-{key_of(file.stem, [])}"
    path = folder / RESULT
    with run_folder(folder):
        write_json(path, document)
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
