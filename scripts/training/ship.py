"""What training left in its scratch folder -> the package: four checkpoints and two tables."""

import csv
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from training import card, export, optimize
from training.design import Cell
from training.ensemble import INITIAL_STD, Shape

PACKAGE = Path(__file__).parents[2] / "src/gainlens"
TABLE, BLOCKS, RECORD = "twins_training.csv", "twins_blocks.csv", "twins_training.json"
SHIPPED = tuple(Cell(context, theta) for context in (512, 4096) for theta in (1e4, 5e5))
SEED = 0
CONTEXTS = (512, 4096)
LAST_BLOCK = {
    "log_gain": "log_gain_last_ordinary",
    "attention": "attention_last_ordinary",
    "mlp": "mlp_last_ordinary",
    "bos_log_gain": "log_gain_last_bos",
}
KEY = ("context", "theta", "bos_every", "seed", "step")
COLUMNS = {
    "context": "training context, tokens",
    "theta": "RoPE base in training and measurement",
    "bos_every": "every k-th sequence begins with a BOS; 8 marks the control",
    "seed": "of initial weights and data order; cells of one seed share both",
    "step": "optimiser steps so far",
    "tokens": "tokens trained on so far",
    "learning_rate": "at this step",
    "train_loss": "nats per token, on the one batch of the last step (the same text in every cell "
    "of a seed); nan before the first",
    **{
        f"loss_{n}": f"nats per token on the held-out windows cut into pieces of {n} tokens, mean "
        "over all positions, BOS first; bfloat16 arithmetic"
        for n in card.LENGTHS
    },
    "notebook_last_gain": "ratio; mean |ln_final(y)| over mean |x| of the last block on the "
    "notebook's sentence, float32",
    "sigma_max_w_u": "largest singular value of lm_head",
    "massive_tokens": "of all mixed prompts' tokens but the first of each",
    "log_gain_last_ordinary": "nats; last block, ordinary tokens, geometric mean, then mean over "
    "the mixed prompts cut to 512 tokens; float32",
    "attention_last_ordinary": "nats; attention's part of it (logmean split)",
    "mlp_last_ordinary": "nats; the MLP's part of it",
    "log_gain_last_bos": "nats; last block, position 0",
}
BLOCK_COLUMNS = {name: COLUMNS[name] for name in KEY} | {
    "block": "from 0",
    "log_gain": "nats; ordinary tokens, geometric mean, then mean over the mixed prompts",
    "attention": "nats; attention's part of it (logmean split)",
    "mlp": "nats; the MLP's part of it",
    "bos_log_gain": "nats; position 0",
    "log_norm_out": "log of |y|, mean over all ordinary tokens",
}
Row = dict[str, str]


def read_rows(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def short(text: str) -> str:
    """Six significant digits; whole numbers stay whole."""
    return text if text.lstrip("-").isdigit() else f"{float(text):.6g}"


def write_rows(path: Path, columns: dict[str, str], rows: list[Row]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: short(row[name]) for name in columns} for row in rows)


def joined(table: list[Row], blocks: list[Row]) -> list[Row]:
    """The training table with the last block's numbers beside."""
    last = max(int(row["block"]) for row in blocks)
    found = {tuple(r[k] for k in KEY): r for r in blocks if int(r["block"]) == last}
    return [
        row | {new: found[tuple(row[k] for k in KEY)][old] for old, new in LAST_BLOCK.items()}
        for row in table
    ]


def of_cell(row: Row, cell: Cell, seed: int, step: int) -> bool:
    values = (cell.context, cell.theta, cell.bos_every, seed, step)
    return all(float(row[name]) == value for name, value in zip(KEY, values, strict=True))


def compared(corpus: dict[str, Any], run: dict[str, Any], tokenizer: Path) -> dict[str, Any]:
    """What must agree between twins for context and theta to be the only difference."""
    return {
        "data": corpus["sha256"],
        "tokenizer": hashlib.sha256((tokenizer / "tokenizer.json").read_bytes()).hexdigest(),
        "tokens": run["step"] * run["tokens_per_step"],
        "steps": run["step"],
        "seed": SEED,
        "tokens_per_step": run["tokens_per_step"],
        "bos": "replaces the first token of every sequence",
        "initial_std": INITIAL_STD,
        "optimizer": f"AdamW, betas {optimize.BETAS}, weight decay {optimize.WEIGHT_DECAY} on "
        f"matrices, gradient norm at most {optimize.CLIP}",
        "peak_learning_rate": run["peak_learning_rate"],
        "schedule": f"{run['warm_up_steps']} steps of warm-up, constant, linear to 0 over the last "
        f"{optimize.DECAY_SHARE:.0%}",
        "precision": "float32 weights and residual stream, bfloat16 matrix products",
    }


def measured(row: Row, blocks: list[Row]) -> dict[str, Any]:
    """The shipped tables' final rows of this checkpoint, as numbers."""
    plain = {n: json.loads(short(row[n])) for n in COLUMNS if n not in (*KEY, "tokens")}
    rows = [{n: json.loads(short(b[n])) for n in BLOCK_COLUMNS if n not in KEY} for b in blocks]
    return plain | {"blocks": rows}


def run_block(run: dict[str, Any]) -> dict[str, Any]:
    """How and where: differs between contexts by nature."""
    commands = ["prepare", run["command"].partition("train_twins.py ")[2], "ship"]
    processed = run["step"] * run["tokens_per_step"] * run["replicas"]
    return {
        "commands": [f"python scripts/train_twins.py {command}" for command in commands],
        "replicas_side_by_side": run["replicas"],
        "seconds": run["seconds_of_last_call"],
        "tokens_per_second_all_replicas": round(processed / run["seconds_of_last_call"]),
        **{name: run[name] for name in ("hardware", "peak_memory_gb", "torch", "python", "date")},
    }


def ship(folder: Path, package: Path = PACKAGE) -> None:
    """Write package/twins/<name>/ and package/data/; refused unless both trainings are finished."""
    out, data = folder / "out", folder / "data"
    runs = {c: json.loads((out / f"run-{c}.json").read_text()) for c in CONTEXTS}
    for context, run in runs.items():
        if run["step"] != run["steps"]:
            raise ValueError(
                f"the training at context {context} stands at step {run['step']} of "
                f"{run['steps']}: run `train --context {context}` again to finish it."
            )
    blocks = [row for c in CONTEXTS for row in read_rows(out / f"blocks-{c}.csv")]
    table = joined([r for c in CONTEXTS for r in read_rows(out / f"table-{c}.csv")], blocks)
    corpus = json.loads((data / "corpus.json").read_text())
    tables = package / "data"
    tables.mkdir(parents=True, exist_ok=True)
    write_rows(tables / TABLE, COLUMNS, table)
    write_rows(tables / BLOCKS, BLOCK_COLUMNS, blocks)
    record = {
        "tables": {TABLE: COLUMNS, BLOCKS: BLOCK_COLUMNS},
        "measured_on": "weights rounded to bfloat16, as a checkpoint holds them",
        "held_out_windows": f"{runs[512]['held_out_windows']} of {card.WINDOW} tokens",
        "runs": {str(context): run_block(run) for context, run in runs.items()},
        "corpus": corpus,
    }
    (tables / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    for cell in SHIPPED:
        run = runs[cell.context]
        final = next(row for row in table if of_cell(row, cell, SEED, run["step"]))
        own = [row for row in blocks if of_cell(row, cell, SEED, run["step"])]
        training = {
            "compared": compared(corpus, run, data / "tokenizer"),
            "context": cell.context,
            "theta": cell.theta,
            "measured": measured(final, own),
            "run": run_block(run),
            "corpus": corpus,
        }
        ship_model(package / "twins" / cell.name, cell, out, data / "tokenizer", training)


def ship_model(
    folder: Path, cell: Cell, out: Path, tokenizer: Path, training: dict[str, Any]
) -> None:
    """One Hugging Face directory with its tokenizer, card and record."""
    shape, prefix = Shape(), f"seed{SEED}/"
    stored = load_file(out / f"{cell.name}.safetensors")
    state = {n.removeprefix(prefix): t for n, t in stored.items() if n.startswith(prefix)}
    weights = export.from_state_dict(state, shape)
    export.write_model(folder, weights, shape, cell.context, cell.theta)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer / name, folder / name)
    (folder / "training.json").write_text(json.dumps(training, indent=2) + "\n")
    (folder / "README.md").write_text(card.text(cell, training))
