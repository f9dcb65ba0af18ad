"""Run `gainlens compare`, which scripts/compare.py runs too.

The exit status is 0 if the comparison ran, whatever its verdict; 2 for a user's mistake, with one
line on standard error; 130 on Ctrl-C.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from gainlens.cli.flags import COMPARE_OPTIONS, command_line, spec_of
from gainlens.cli.options import ExamplesCommand, print_json, with_options
from gainlens.models.processes import collect_seldom, joined, started

EXAMPLES = (
    ("", "the shipped twins, offline, on a laptop"),
    ("--preset llama --device cuda", "the notebook's own models"),
    ("--short DIR --long NAME", "any two models, local or from the hub"),
    ("--prompts mine.jsonl --tokens 256", "your own texts, cut or joined to exact lengths"),
    ("--sweep 8 --theta 1e3 --theta 5e6", "ablate more blocks, try more RoPE bases"),
    ("--ablate blocks.-1.hook_mlp_out=zero", "before and after, side by side"),
    ("--rescore result.json", "what an old result can and cannot say"),
)


@click.command("compare", cls=ExamplesCommand, examples=EXAMPLES)
@with_options(COMPARE_OPTIONS)
@click.pass_context
def compare_command(context: click.Context, /, **flags: Any) -> None:
    """Test whether a long-context model contracts its residual stream in the last block.

    The claim says so, and that a short-context model expands it.  This command measures each
    model's stream block by block, splits every gain into attention and MLP, and says how far the
    numbers carry the claim.
    """
    if not started().first:
        if not flags["rescore"]:
            _run_share(flags)
        return
    if flags["rescore"]:
        from gainlens.cli.rescore import rescore_file

        quiet = flags["quiet"] or flags["as_json"]
        document = rescore_file(flags["rescore"], flags["out"], quiet)
    else:
        document = _compare(flags, command_line(context))
    if flags["as_json"]:
        print_json(document)


def _run_share(flags: dict[str, Any]) -> None:
    """Run this process's share of the prompts; the first process writes the result."""
    from gainlens.models.quiet import chatter_silenced

    spec = spec_of(flags)
    with chatter_silenced(), joined():
        from gainlens.runs.pipeline import compare

        compare(spec)


def _compare(flags: dict[str, Any], command: str) -> dict[str, Any]:
    """Compare, write the run folder, print the answer, and return result.json."""
    from gainlens.models.quiet import chatter_silenced
    from gainlens.report.progress import progress
    from gainlens.report.terminal import print_answer, print_comparison
    from gainlens.results.result_json import result_json
    from gainlens.results.run_folder import check_writable, run_folder
    from gainlens.runs.workers import started_for
    from gainlens.runs.writing import write_run

    spec = spec_of(flags)
    out: Path = flags["out"] or Path("runs") / spec.name
    check_writable(out)
    with (
        started_for(spec) as workers,
        run_folder(out),
        chatter_silenced(),
        progress(flags["quiet"] or flags["as_json"], len(spec.models)) as watch,
        joined(),
    ):
        from gainlens.runs.pipeline import compare
        from gainlens.runs.resume import Partials

        with Partials(out, spec, watch.tell) as partials:
            comparison = replace(compare(spec, watch, partials, workers), command=command)
            watch.phase("drawing figures, writing tables")
            written = write_run(out, flags["figures"] or out / "figures", comparison, workers)
    if not (flags["quiet"] or flags["as_json"]):
        print_comparison(comparison, written, verbose=flags["verbose"])
    elif not flags["as_json"]:
        print_answer(comparison)
    return result_json(comparison)


def run(command: click.Command, arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; print a user's mistake as one line."""
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
    collect_seldom()
    sys.exit(run(command))
