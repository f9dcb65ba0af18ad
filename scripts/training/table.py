"""Rows of finished jobs -> one tidy table in the package, with the record that describes it."""

import csv
import gzip
import io
import json
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from training.cost import flops_per_token, memory_bytes
from training.design import Design, Job
from training.settings import check_digest, digest
from training.state import Row

PACKAGE_DATA = Path(__file__).parents[2] / "src/gainlens/data"
MAX_BYTES = 3_000_000
KEYS = ("group", "context", "theta", "base_theta", "bos_every", "seed", "step")
COLUMNS = {
    "group": "which part of the design: dose, extension_*, first_positions, large",
    "context": "training context, tokens",
    "theta": "RoPE base in training and measurement",
    "base_theta": "RoPE base of the training that an extension goes on from; 0 if it starts anew",
    "bos_every": "every k-th sequence begins with a BOS",
    "seed": "of initial weights and data order; cells of one seed share both",
    "step": "optimiser steps so far; an extension counts from 0",
    "tokens": "tokens trained on so far, the base's included",
    "measure": "what the value is: see measures",
    "block": "from 0; -1 if the value is not of one block",
    "positions": "bin of positions; empty if the value is of all",
    "length": "tokens per sequence of a held-out loss; 0 for other measures",
    "value": "float32, in the unit of its measure",
}
MEASURES = {
    "loss": "nats per token on held-out windows cut into pieces of `length` tokens, BOS first in "
    "each, mean over all positions; bfloat16 arithmetic",
    "train_loss": "nats per token on the one batch of the last step; NaN before the first",
    "sigma_max_w_u": "largest singular value of lm_head",
    "notebook_last_gain": "ratio; mean |ln_final(y)| over mean |x| of the last block on the "
    "notebook's sentence",
    "massive_tokens": "of all mixed prompts' tokens but the first of each: count of those massive "
    "at some block's input",
    "log_gain": "nats; ordinary tokens (neither position 0 nor massive), mean log |y|/|x| per "
    "prompt, then mean over the mixed prompts. With `positions`: the last block, the tokens of "
    "that bin only (0 is position 0)",
    "attention": "nats; attention's part of log_gain (logarithmic-mean split)",
    "mlp": "nats; the MLP's part of log_gain",
    "log_norm_out": "nats; log |y|, mean over all ordinary tokens",
    "angle": "half-turns; arccos(cos(x, y)) / pi, ordinary tokens, averaged as log_gain",
    "bos_log_gain": "nats; position 0, the same in every prompt",
    "bos_attention": "nats; attention's part of it",
    "bos_mlp": "nats; the MLP's part of it",
    "bos_angle": "half-turns; position 0",
    "bos_log_norm_out": "nats; log |y| of position 0",
    "max_component": "largest |component| of y over all tokens of the mixed prompts",
    "sink": "attention weight on position 0, mean over queries after the first, over prompts and "
    "over heads; of one block, or (-1) of all",
    "sinking_heads": "share of heads whose weight on position 0 exceeds 0.3 (Gu et al. 2024, "
    "arXiv 2410.10781)",
    "bos_written_by": "block that writes position 0; NaN if it is not massive",
    "bos_erased_by": "block that erases it; NaN if none does",
    "bos_norm_ratio": "norm of position 0 over the median of ordinary tokens, at the block's input "
    "where it is largest",
    "long_log_gain": "as log_gain by positions, on whole held-out windows; at the last step only",
    "long_attention": "nats; attention's part of it",
    "long_mlp": "nats; the MLP's part of it",
}


def write_rows(path: Path, job: Job, rows: Sequence[Row]) -> None:
    """Write a job's rows behind the keys of their replica, gzipped csv."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    before = 0 if job.base is None else job.base.steps
    for row in rows:
        replica = job.replicas[row.replica]
        cell = replica.cell
        key = (job.group, cell.context, cell.theta, cell.base_theta, cell.bos_every, replica.seed)
        trained = (before + row.step) * job.training.tokens_per_step
        place = (row.measure, row.block, row.positions, row.length)
        writer.writerow((*key, row.step, trained, *place, f"{row.value:.7g}"))
    path.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


def read_rows(path: Path) -> pd.DataFrame:
    """Read a job's rows."""
    return pd.read_csv(path, keep_default_na=False, na_values={"value": ["nan"]})


def tidy(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Join jobs' rows in one order, with small types."""
    whole = pd.concat(list(frames), ignore_index=True)
    whole = whole.sort_values([*KEYS, "measure", "block", "positions", "length"], kind="stable")
    types = {"group": "category", "measure": "category", "positions": "category"}
    types |= {"context": "int32", "step": "int32", "tokens": "int64", "length": "int32"}
    types |= {"seed": "int16", "block": "int16", "bos_every": "int16", "value": "float32"}
    return whole.astype(types).reset_index(drop=True)


def collect(
    design: Design, jobs: Path, corpus: dict[str, Any], out: Path = PACKAGE_DATA
) -> tuple[Path, Path]:
    """Write the finished jobs' rows as out/<design>.parquet and their record beside it.

    Jobs that the table holds already, from another machine's folder, stay in it. ValueError if
    there is no finished job, if a job of the table had other settings than the design has now, or
    if the table would exceed three megabytes.
    """
    finished = [job for job in design.jobs if (jobs / job.name / "record.json").exists()]
    if not finished:
        raise ValueError(f"no job of {design.name} is finished in {jobs}: run `train` first.")
    data, record = out / f"{design.name}.parquet", out / f"{design.name}.json"
    frames = [read_rows(jobs / job.name / "rows.csv.gz") for job in finished]
    records = {
        job.name: json.loads((jobs / job.name / "record.json").read_text()) for job in finished
    }
    shorts = {job.name: _short(job, records[job.name]) for job in finished}
    commands = sorted({one["command"] for one in records.values()})
    if record.exists():
        before = json.loads(record.read_text())
        kept = kept_jobs(design, before["jobs"], shorts)
        frames += [rows_of(pd.read_parquet(data), job) for job in kept]
        shorts |= {job.name: before["jobs"][job.name] for job in kept}
        commands = list(dict.fromkeys([*before["train_commands"], *commands]))
    frame = tidy(frames)
    partial = data.with_suffix(".partial")
    frame.to_parquet(partial, compression="zstd", compression_level=19, index=False)
    if partial.stat().st_size > MAX_BYTES:
        raise ValueError(
            f"{data.name} would have {partial.stat().st_size:,} bytes, {MAX_BYTES:,} at most: "
            "measure at fewer points."
        )
    partial.replace(data)
    ordered = {job.name: shorts[job.name] for job in design.jobs if job.name in shorts}
    record.write_text(json.dumps(describe(design, ordered, commands, corpus), indent=1) + "\n")
    return data, record


def kept_jobs(design: Design, before: dict[str, dict[str, Any]], now: dict[str, Any]) -> list[Job]:
    """Return the jobs that only the table holds; ValueError if their settings are others now."""
    kept = [job for job in design.jobs if job.name in before and job.name not in now]
    for job in kept:
        check_digest(job.name, before[job.name]["settings_sha256"], job.settings)
    return kept


def rows_of(frame: pd.DataFrame, job: Job) -> pd.DataFrame:
    """Return the rows of a job's replicas."""
    seeds = {replica.seed for replica in job.replicas}
    own = (frame.group == job.group) & (frame.context == job.context) & frame.seed.isin(seeds)
    return frame[own]


def describe(
    design: Design,
    jobs: dict[str, dict[str, Any]],
    commands: list[str],
    corpus: dict[str, Any],
) -> dict[str, Any]:
    """Describe the table: columns, measures, commands, machines, hours, speed."""
    parts = ("training", "starting", "measuring", "saving")
    seconds = sum(job["seconds"][part] for job in jobs.values() for part in parts)
    return {
        "table": f"{design.name}.parquet",
        "columns": COLUMNS,
        "measures": MEASURES,
        "measured_on": "weights rounded to bfloat16, as a checkpoint holds them; float32 "
        "arithmetic but for the losses; mixed prompts cut to measuring.prompt_tokens",
        "commands": [
            "python scripts/train_twins.py prepare",
            f"python scripts/train_twins.py train {design.name}",
            f"python scripts/train_twins.py collect {design.name}",
        ],
        "train_commands": commands,
        "gpu_hours": round(seconds / 3600, 3),
        "speed": speed(jobs),
        "positions_in_longer_files": corpus.get("positions_in_longer_files"),
        "not_trained": [job.name for job in design.jobs if job.name not in jobs],
        "jobs": jobs,
        "training": _training(design),
        "corpus": corpus,
        "collected_with": {"python": platform.python_version(), "pandas": pd.__version__},
    }


def speed(jobs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Average tokens per second, and the share of the card's rate, weighted by time."""
    timed = [job for job in jobs.values() if job["tokens_per_second"] is not None]
    known = [job for job in timed if job["share_of_peak"] is not None]

    def mean(name: str, among: list[dict[str, Any]], digits: int) -> float | None:
        spent = sum(job["seconds"]["training"] for job in among)
        total = sum(job[name] * job["seconds"]["training"] for job in among)
        return round(total / spent, digits) if spent else None

    return {
        "tokens_per_second_per_gpu": mean("tokens_per_second", timed, 0),
        "share_of_peak": mean("share_of_peak", known, 4),
        "peak": "989 TFLOP/s, dense bfloat16 of an H100 or H200 SXM by the datasheet",
        "operations": "model FLOPs: 3 x (2 x weights + causal attention) per token; optimiser, "
        "embedding and recomputation not counted",
    }


def _short(job: Job, record: dict[str, Any]) -> dict[str, Any]:
    """Keep of a job's record what its settings in the design do not say."""
    kept = ("hardware", "attention", "seconds", "tokens_per_second", "share_of_peak")
    return {
        "settings_sha256": digest(record["settings"]),
        "replicas": len(job.replicas),
        "weights_per_replica": job.shape.weights,
        "flops_per_token": round(flops_per_token(job)),
        "short_share": round(record["short_share"], 4),
        "memory_estimated_gb": round(memory_bytes(job) / 1e9, 1),
        "memory_peak_gb": record["memory_gb"]["peak"],
        **{name: record[name] for name in (*kept, "torch", "python", "date")},
    }


def _training(design: Design) -> dict[str, Any]:
    """Describe the schedule and the batch, which all groups share but for steps and rate."""
    from training import optimize

    training = design.jobs[0].training
    return {
        "tokens_per_step": training.tokens_per_step,
        "window": training.window,
        "warm_up_steps": training.warm_up,
        "steps_and_peak_rate": {
            job.group: [job.training.steps, job.training.rate] for job in design.jobs
        },
        "schedule": f"warm-up, constant, linear to 0 over the last {optimize.DECAY_SHARE:.0%}",
        "optimizer": f"AdamW, betas {optimize.BETAS}, weight decay {optimize.WEIGHT_DECAY} on "
        f"matrices, gradient norm at most {optimize.CLIP}",
        "precision": "float32 weights and residual stream, bfloat16 matrix products",
        "bos": "replaces the first token of every sequence",
        "extension": "goes on from the end of its base: weights, moments, the next text in the "
        "seed's order",
        "first_positions": "short_share of the windows, spread evenly over the steps, is cut into "
        "sequences of 64 tokens, the others into sequences of the context: as many sequence starts "
        "per token as at context 256",
    }


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the last step per cell: mean over seeds +- half of the 95 % interval (Student's t).

    Columns: gain of ordinary tokens and of position 0 at the last block, its parts, the notebook's
    number, sink share, loss at the own context.
    """
    from scipy.stats import t

    cell = ["group", "context", "theta", "base_theta", "bos_every"]
    last = frame[frame.step == frame.groupby(cell, observed=True).step.transform("max")]
    top = last.groupby(cell, observed=True).block.transform("max")
    whole = last[(last.positions == "") & ((last.block == top) | (last.block == -1))]
    own = whole[(whole.measure != "loss") | (whole.length == whole.context)]
    own = own[~((own.measure.isin(["sink", "sinking_heads"])) & (own.block != -1))]
    names = ("log_gain", "attention", "mlp", "bos_log_gain", "notebook_last_gain")
    names = (*names, "sink", "sinking_heads", "angle", "bos_norm_ratio", "loss")
    lines = []
    for key, group in own.groupby(cell, observed=True):
        line = dict(zip(cell, key, strict=True))
        for name in names:
            found = group[group.measure == name].value.dropna().to_numpy(float)
            line["seeds"] = len(found)
            half = np.nan
            if len(found) > 1:
                spread = found.std(ddof=1) / np.sqrt(len(found))
                half = float(t.ppf(0.975, len(found) - 1) * spread)
            mean = found.mean() if len(found) else np.nan
            line[name] = f"{mean:.3f}±{half:.3f}"
        lines.append(line)
    return pd.DataFrame(lines)
