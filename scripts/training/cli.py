"""The command line of scripts/train_twins.py: one function a step."""

import argparse
import csv
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from training import corpus, export, prepare, train
from training.train import Cell, Plan, Replica, Row, Trainer

REQUIREMENTS = Path(__file__).parents[1] / "corpus.txt"
THETAS = (1e4, 5e5)
SEEDS = (0, 1, 2)
PILOT_RATES = (1e-3, 1.5e-3, 2e-3, 3e-3, 4e-3, 6e-3)
# 3e-3 was the best of these at context 512 and within 0.07 nats of the best at 4,096 after 13 to
# 16M tokens; from 8e-3 on every replica got worse, below 1e-3 all were far behind.
RATE = 3e-3
CONTROL = 8  # in the control a BOS stands only in every eighth sequence, as often as at 4,096


def cells(context: int) -> list[Cell]:
    """The design's cells at one context, the control beside the short ones."""
    found = [Cell(context, theta) for theta in THETAS]
    if context == 512:
        found += [Cell(context, theta, CONTROL) for theta in THETAS]
    return found


def design(context: int, steps: int, rate: float, windows: int) -> Plan:
    """Every cell and seed of one context."""
    replicas = [Replica(cell, seed, rate) for cell in cells(context) for seed in SEEDS]
    return Plan(tuple(replicas), steps, windows_per_step=windows, log_steps=train.log_steps(steps))


def rates_pilot(context: int, steps: int, rates: list[float], replicas: int, windows: int) -> Plan:
    """One cell and seed under several rates, repeated to the replica count of the real run."""
    chosen = [rates[number % len(rates)] for number in range(replicas)]
    cell = Cell(context, THETAS[0])
    found = tuple(Replica(cell, number // len(rates), r) for number, r in enumerate(chosen))
    return Plan(found, steps, min(200, steps // 4), windows, log_steps=(steps,))


def trainer_for(plan: Plan, data: prepare.Data, device: str) -> Trainer:
    compute = torch.bfloat16 if device == "cuda" else torch.float32
    return Trainer(plan, data.train, data.held_out, device, compute)


def run_prepare(arguments: argparse.Namespace) -> None:
    folder = Path(arguments.folder)
    wheels = folder / "wheels"
    corpus.download(REQUIREMENTS, wheels)
    prepare.write(REQUIREMENTS, wheels, folder / "data")


def run_pilot(arguments: argparse.Namespace) -> None:
    folder = Path(arguments.folder)
    replicas = len(cells(arguments.context)) * len(SEEDS)
    plan = rates_pilot(
        arguments.context, arguments.steps, arguments.rates, replicas, arguments.windows
    )
    data = prepare.read(folder / "data")
    trainer = trainer_for(plan, data, arguments.device)
    state = trainer.start()
    for _ in range(5):
        state, _ = trainer.step(state)
    synchronize(arguments.device)
    began = time.monotonic()
    while state.step < plan.steps:
        state, losses = trainer.step(state)
        if state.step % 200 == 0:  # reading the loss waits for the device
            say(f"{time.monotonic() - began:5.1f} s  step {state.step}  {losses.mean():.3f}")
    synchronize(arguments.device)
    seconds = time.monotonic() - began
    processed = (plan.steps - 5) * plan.tokens_per_step * replicas
    print(f"context {arguments.context}: {processed / seconds / 1e6:.2f}M tokens/s", flush=True)
    began = time.monotonic()
    table, _ = trainer.log(state, torch.zeros(replicas), data.prompts)
    print(f"one log point takes {time.monotonic() - began:.1f} s", flush=True)
    for row, replica in zip(table, plan.replicas, strict=True):
        losses = [f"{name[5:]}: {row[name]:.4f}" for name in row if name.startswith("loss_")]
        gain = f"last_gain {row['notebook_last_gain']:.3f}"
        print(f"rate {replica.rate:g} seed {replica.seed}", *losses, gain, flush=True)


def run_train(arguments: argparse.Namespace) -> None:
    folder = Path(arguments.folder)
    plan = design(arguments.context, arguments.steps, arguments.rate, arguments.windows)
    data = prepare.read(folder / "data")
    trainer = trainer_for(plan, data, arguments.device)
    checkpoint = folder / f"state-{arguments.context}.pt"
    began = time.monotonic()
    state, logged = train.run(trainer, data.prompts, checkpoint, arguments.stop_after, say)
    out = Path(arguments.out or folder / "out")
    out.mkdir(parents=True, exist_ok=True)
    write_rows(out / f"table-{arguments.context}.csv", logged[0])
    write_rows(out / f"blocks-{arguments.context}.csv", logged[1])
    for cell in cells(arguments.context):
        save_cell(out, cell, state, plan)
    record = run_record(arguments, plan, state.step, time.monotonic() - began)
    (out / f"run-{arguments.context}.json").write_text(json.dumps(record, indent=2) + "\n")


def save_cell(out: Path, cell: Cell, state: train.State, plan: Plan) -> None:
    """All seeds of a cell in one file, bfloat16, Hugging Face's names behind `seed<n>/`."""
    tensors: dict[str, torch.Tensor] = {}
    for number, replica in enumerate(plan.replicas):
        if replica.cell == cell:
            named = export.state_dict(export.replica(state.weights, number), plan.shape)
            for name, tensor in named.items():
                kept = tensor.to("cpu", torch.bfloat16).contiguous()
                tensors[f"seed{replica.seed}/{name}"] = kept
    save_file(tensors, out / f"{cell.name}.safetensors", metadata={"step": str(state.step)})


def run_record(
    arguments: argparse.Namespace, plan: Plan, step: int, seconds: float
) -> dict[str, Any]:
    """What the machine was and how long it took."""
    cuda = arguments.device == "cuda"
    return {
        "command": " ".join(["python scripts/train_twins.py train", *command_line(arguments)]),
        "context": arguments.context,
        "step": step,
        "steps": plan.steps,
        "tokens_per_step": plan.tokens_per_step,
        "replicas": len(plan.replicas),
        "peak_learning_rate": arguments.rate,
        "warm_up_steps": plan.warm_up,
        "held_out_windows": plan.held_out_windows,
        "seconds_of_last_call": round(seconds, 1),
        "hardware": torch.cuda.get_device_name() if cuda else platform.machine(),
        "peak_memory_gb": round(torch.cuda.max_memory_allocated() / 1e9, 1) if cuda else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def command_line(arguments: argparse.Namespace) -> list[str]:
    names = ("context", "steps", "rate", "windows")
    values = {name: getattr(arguments, name) for name in names}
    return [f"--{name} {value:g}" for name, value in values.items()]


def write_rows(path: Path, rows: list[Row]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def say(line: str) -> None:
    print(line, flush=True)


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def run_ship(arguments: argparse.Namespace) -> None:
    from training import ship  # reads pandas; the training machine need not have it

    ship.ship(Path(arguments.folder))


def parser() -> argparse.ArgumentParser:
    main_parser = argparse.ArgumentParser(description="Train the twins.")
    steps = main_parser.add_subparsers(required=True, metavar="STEP")
    functions = {"prepare": run_prepare, "pilot": run_pilot, "train": run_train, "ship": run_ship}
    for name, function in functions.items():
        step = steps.add_parser(name)
        step.set_defaults(function=function)
        step.add_argument("--folder", default="training", help="scratch folder")
        if name in ("pilot", "train"):
            step.add_argument("--context", type=int, choices=(512, 4096), required=True)
            step.add_argument("--steps", type=int, default=300 if name == "pilot" else 15000)
            step.add_argument("--windows", type=int, default=4, help="of 4,096 tokens, per step")
            step.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    pilot, training = steps.choices["pilot"], steps.choices["train"]
    pilot.add_argument("--rates", type=float, nargs="+", default=PILOT_RATES)
    training.add_argument("--rate", type=float, default=RATE, help="peak learning rate")
    training.add_argument("--stop-after", type=float, default=float("inf"), help="seconds")
    training.add_argument("--out", help="folder of tables and weights (default: FOLDER/out)")
    return main_parser


def main() -> None:
    arguments = parser().parse_args(sys.argv[1:])
    arguments.function(arguments)
