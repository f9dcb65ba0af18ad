"""The queue: one worker process per device takes a design's jobs in order, each resumable."""

import fcntl
import json
import multiprocessing as mp
import os
import platform
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import save_file

from training import cost, export, loop, prepare, table
from training.design import Design, Job, read
from training.settings import check_digest, check_same
from training.state import Progress, check_settings
from training.trainer import Pieces, Trainer


@dataclass(frozen=True)
class Folder:
    """Say where a design's jobs lie."""

    path: Path

    def state(self, job: str) -> Path:
        return self.path / job / "state.pt"

    def record(self, job: str) -> Path:
        return self.path / job / "record.json"

    def rows(self, job: str) -> Path:
        return self.path / job / "rows.csv.gz"

    def weights(self, job: str) -> Path:
        return self.path / job / "weights.safetensors"


@dataclass(frozen=True)
class Request:
    """What a worker needs to know."""

    design: Path
    data: Path
    jobs: Path
    device: str
    deadline: float
    """on time.monotonic's clock, which all processes of a machine share"""
    save_every: float
    """seconds"""
    command: str
    """how the queue was called, for the record"""


Elsewhere = Mapping[str, str]
NOWHERE: Elsewhere = MappingProxyType({})


def devices() -> list[str]:
    """Return every GPU, or the CPU if there is none."""
    return [f"cuda:{n}" for n in range(torch.cuda.device_count())] or ["cpu"]


def open_jobs(
    design: Design, folder: Folder, elsewhere: Elsewhere = NOWHERE, only: Sequence[str] = ("",)
) -> list[Job]:
    """Return the jobs to train: those not finished here nor elsewhere, whose names begin with one
    of `only`; in the order of `only`, then of the design.

    A job that goes on from another one needs its end here; if that was reached elsewhere, it is
    trained again. ValueError if a finished job had other settings. elsewhere: the digest of each
    job's settings, by its name.
    """
    wanted: list[Job] = []
    for job in design.jobs:
        if folder.record(job.name).exists():
            record = json.loads(folder.record(job.name).read_text())
            check_same(job.name, record["settings"], job.settings)
        elif job.name in elsewhere:
            check_digest(job.name, elsewhere[job.name], job.settings)
        elif job.name.startswith(tuple(only)):
            wanted.append(job)
    bases = {job.base.job for job in wanted if job.base is not None}
    again = [job for job in design.jobs if job.name in bases and job not in wanted]
    again = [job for job in again if not folder.state(job.name).exists()]
    chosen = [job for job in design.jobs if job in wanted or job in again]
    place = {
        job.name: next((n for n, start in enumerate(only) if job.name.startswith(start)), -1)
        for job in chosen
    }
    return sorted(chosen, key=lambda job: place[job.name])


def run(
    design_path: Path,
    data: Path,
    jobs: Path,
    on: Sequence[str],
    stop_after: float = float("inf"),
    elsewhere: Elsewhere = NOWHERE,
    only: Sequence[str] = ("",),
    save_every: float = 180.0,
) -> list[str]:
    """Train a design's open jobs on the devices; the names of jobs that failed.

    ValueError, before anything runs, if a job does not fit on a device or was begun with other
    settings, or if another queue works in the folder. After `stop_after` seconds every job saves
    its state and the queue ends.
    """
    design, folder = read(design_path), Folder(jobs)
    waiting = open_jobs(design, folder, elsewhere, only)
    for job in waiting:
        for device in on:
            cost.check_memory(job, device)
        if folder.state(job.name).exists():
            check_settings(folder.state(job.name), job)
    jobs.mkdir(parents=True, exist_ok=True)
    with (jobs / "queue.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another queue trains in {jobs}: stop it first.") from None
        deadline = time.monotonic() + stop_after
        command = " ".join(["python scripts/train_twins.py", *sys.argv[1:]])
        requests = [Request(design_path, data, jobs, d, deadline, save_every, command) for d in on]
        return _serve(waiting, folder, requests)


def _serve(waiting: list[Job], folder: Folder, requests: Sequence[Request]) -> list[str]:
    """Hand jobs to workers as they come free; a worker that dies fails its job only."""
    context = mp.get_context("spawn")
    workers: dict[Connection, Any] = {}
    for request in requests:
        ours, theirs = context.Pipe()
        workers[ours] = context.Process(target=work, args=(request, theirs), name=request.device)
        with only_device(request.device):
            workers[ours].start()
        theirs.close()
    running: dict[Connection, Job] = {}
    idle: list[Connection] = []
    failed: list[str] = []
    deadline = requests[0].deadline
    while workers:
        for connection in list(idle):
            job = _next(waiting, running, failed, folder) if time.monotonic() < deadline else None
            blocked = bool(waiting) and bool(running) and time.monotonic() < deadline
            if job is None and blocked:
                continue  # what it waits for is being trained
            idle.remove(connection)
            connection.send(None if job is None else job.name)
            if job is not None:
                waiting.remove(job)
                running[connection] = job
        for ready in wait(list(workers)):
            assert isinstance(ready, Connection)
            try:
                message = ready.recv()
            except EOFError:  # the process ended: told to, or died
                process = workers.pop(ready)
                process.join()
                if ready in running:
                    failed.append(running.pop(ready).name)
                    say(f"{process.name}: died with exit code {process.exitcode} in {failed[-1]}")
                continue
            job = running.pop(ready, None)
            if message:
                assert job is not None
                failed.append(job.name)
                say(f"{job.name} failed: {message}")
            idle.append(ready)
    return failed


@contextmanager
def only_device(device: str) -> Iterator[None]:
    """Let a process that is started inside see one GPU, as cuda:0: so that all of them share the
    compiler's cache."""
    name = "CUDA_VISIBLE_DEVICES"
    before = os.environ.get(name)
    if device.startswith("cuda:"):
        number = int(device.removeprefix("cuda:"))
        os.environ[name] = before.split(",")[number] if before else str(number)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


def _next(
    waiting: list[Job], running: dict[Connection, Job], failed: list[str], folder: Folder
) -> Job | None:
    """Return the first job whose base is at its end; those of a failed base never are."""
    for job in waiting:
        base = None if job.base is None else job.base.job
        under_way = {one.name for one in (*waiting, *running.values())}
        if base is None or (base not in under_way and base not in failed):
            return job
    return None


def work(request: Request, connection: Connection) -> None:
    """Train job after job on one device until there is none; send "" or what went wrong."""
    device = "cuda:0" if request.device.startswith("cuda") else request.device
    if device == "cpu":
        torch.set_num_threads(1)
    design, folder = read(request.design), Folder(request.jobs)
    data = prepare.read(request.data)
    pieces = Pieces(device.startswith("cuda"))
    message = ""
    while True:
        connection.send(message)
        name = connection.recv()
        if name is None:
            connection.close()
            return
        try:
            train_job(design.job(name), data, folder, device, pieces, request)
            message = ""
        except Exception as error:  # the other jobs go on
            traceback.print_exc()
            message = f"{type(error).__name__}: {error}"


def train_job(
    job: Job, data: prepare.Data, folder: Folder, device: str, pieces: Pieces, request: Request
) -> None:
    """Train one job to its end, or to the deadline, and write down what came of it."""
    folder.state(job.name).parent.mkdir(parents=True, exist_ok=True)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    say(f"{device}: {job.name} starts")
    base = None if job.base is None else folder.state(job.base.job)
    ensemble = Trainer(job, data, device, pieces)
    limits = (request.deadline, request.save_every)
    progress = loop.run(ensemble, folder.state(job.name), base, *limits, report=say)
    if progress.state.step < job.training.steps:
        say(f"{device}: {job.name} saved at step {progress.state.step}")
        return
    table.write_rows(folder.rows(job.name), job, progress.rows)
    save_weights(folder.weights(job.name), job, progress)
    record = json.dumps(job_record(ensemble, progress, data, request), indent=1)
    partial = folder.record(job.name).with_suffix(".partial")
    partial.write_text(record + "\n")
    partial.replace(folder.record(job.name))  # last: a job with a record is finished
    say(f"{device}: {job.name} finished")


def save_weights(path: Path, job: Job, progress: Progress) -> None:
    """Write all replicas' weights, bfloat16, Hugging Face's names behind `cell/seed<n>/`."""
    tensors: dict[str, torch.Tensor] = {}
    for number, replica in enumerate(job.replicas):
        named = export.state_dict(export.replica(progress.state.weights, number), job.shape)
        for name, tensor in named.items():
            kept = tensor.to("cpu", torch.bfloat16).contiguous()
            tensors[f"{replica.cell.name}/seed{replica.seed}/{name}"] = kept
    save_file(tensors, path, metadata={"step": str(progress.state.step)})


def job_record(
    ensemble: Trainer, progress: Progress, data: prepare.Data, request: Request
) -> dict[str, Any]:
    """Describe a finished job: settings, machine, seconds, speed, share of the card's rate."""
    job, clock, device = ensemble.job, progress.clock, str(ensemble.device)
    cuda = device.startswith("cuda")
    speed = loop.tokens_per_second(job, clock)
    return {
        "command": request.command,
        "settings": job.settings,
        "train_tokens_sha256": data.record["train_tokens_sha256"],
        "hardware": torch.cuda.get_device_name() if cuda else platform.machine(),
        "attention": ensemble.attention,
        "seconds": {name: round(value, 1) for name, value in vars(clock).items()},
        "tokens_per_second": round(speed) if clock.training else None,
        "flops_per_token": round(cost.flops_per_token(job)),
        "share_of_peak": round(speed * cost.flops_per_token(job) / cost.peak_rate(device), 4)
        if cuda and clock.training
        else None,
        "memory_gb": {
            "estimated": round(cost.memory_bytes(job) / 1e9, 1),
            "peak": round(torch.cuda.max_memory_allocated() / 1e9, 1) if cuda else None,
        },
        "short_share": job.short_share,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def say(line: str) -> None:
    """Print a line at once, behind the time of day."""
    print(time.strftime("%H:%M:%S ") + line, flush=True)
    sys.stdout.flush()
