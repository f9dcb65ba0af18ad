"""A whole design through the queue: killed, resumed, refused, collected. Tiny models on the CPU."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from training import (
    design,
    ensemble,
    measure,
    optimize,
    prepare,
    queue,
    settings,
    state,
    table,
    tokens,
)
from training.design import Design, Job
from training.ensemble import Shape
from training.prepare import Data
from training.trainer import Trainer

SCRIPTS = Path(__file__).parents[2] / "scripts"
SHAPE = "shape = { blocks = 2, d_model = 16, heads = 2, d_ff = 16 }"
DESIGN = f"""
name = "tiny"

[training]
steps = 30
window = 64
windows_per_step = 2
rate = 0.01
warm_up = 5
replicas_per_job = 4

[measuring]
points = [0, 0.5, 1]
held_out_windows = 2
lengths = [16, 64]
prompt_tokens = 16
long_windows = 2

[[group]]
name = "dose"
contexts = [16, 64]
thetas = [10_000, 500_000]
seeds = [0, 1]
{SHAPE}

[[group]]
name = "extension"
base = "dose"
base_context = 16
base_thetas = [10_000, 500_000]
contexts = [64]
thetas = [500_000, 5_000_000]
seeds = [0, 1]
steps = 10
{SHAPE}

[[group]]
name = "first_positions"
contexts = [64]
thetas = [10_000]
seeds = [0, 1]
starts_of = 16
short = 8
{SHAPE}
"""
PROMPTS = [[0, 5, 9, 11, 3, 7], [0, 2, 4, 8], [0, *range(2, 30)], [0, 1, 2, 3, 4, 5]]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small lose tenfold to threads that wait for one another on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data as `prepare` leaves it, a design and nothing trained."""
    folder = tmp_path_factory.mktemp("training")
    data = folder / "data"
    data.mkdir()
    pattern = np.tile(np.arange(2, 50, dtype=np.uint16), 300)  # learnable in a few steps
    tokens.write_stream(data / "train.xz", pattern)
    tokens.write_stream(data / "held_out.xz", pattern[:2000])
    (data / "prompts.json").write_text(json.dumps(PROMPTS))
    (data / "corpus.json").write_text(json.dumps({"train_tokens_sha256": "0"}))
    (folder / "tiny.toml").write_text(DESIGN)
    return folder


@pytest.fixture(scope="module")
def trained(prepared: Path) -> Path:
    """The jobs' folder after an undisturbed run."""
    jobs = prepared / "whole"
    failed = queue.run(prepared / "tiny.toml", prepared / "data", jobs, ["cpu"])
    assert failed == []
    return jobs


def read(prepared: Path) -> Design:
    return design.read(prepared / "tiny.toml")


def data_of(prepared: Path) -> Data:
    return prepare.read(prepared / "data")


def rows_of(jobs: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sorted(jobs.glob("*/rows.csv.gz"))}


@pytest.mark.slow
def test_killed_anywhere_it_goes_on_to_the_same_numbers(prepared: Path, trained: Path) -> None:
    """The queue and its worker are killed in mid-training."""
    jobs = prepared / "killed" / "tiny"
    command = [
        sys.executable,
        str(SCRIPTS / "train_twins.py"),
        "train",
        str(prepared / "tiny.toml"),
    ]
    command += ["--folder", str(jobs.parent), "--data", str(prepared / "data")]
    command += ["--devices", "cpu", "--save-every", "0"]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    states: set[int] = set()
    while len(states) < 4 and time.monotonic() < deadline and process.poll() is None:
        states |= {path.stat().st_mtime_ns for path in jobs.glob("*/state.pt")}
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(list(jobs.glob("*/record.json"))) < 4, "the kill came too late to disturb anything"
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert rows_of(jobs) == rows_of(trained)
    calls = [
        json.loads(path.read_text())["seconds"]["calls"] for path in jobs.glob("*/record.json")
    ]
    assert max(calls) > 1


@pytest.mark.slow
def test_the_queue_trains_every_job_once(prepared: Path, trained: Path) -> None:
    names = [job.name for job in read(prepared).jobs]
    assert sorted(rows_of(trained)) == sorted(names)
    before = rows_of(trained)
    stamps = {path: path.stat().st_mtime_ns for path in trained.glob("*/*")}
    assert queue.run(prepared / "tiny.toml", prepared / "data", trained, ["cpu"]) == []
    assert rows_of(trained) == before
    assert {path: path.stat().st_mtime_ns for path in trained.glob("*/*")} == stamps


def test_jobs_finished_elsewhere_are_left_out_but_for_a_base_that_is_needed(
    prepared: Path, tmp_path: Path
) -> None:
    dose = [job for job in read(prepared).jobs if job.group == "dose"]
    elsewhere = {job.name: settings.digest(job.settings) for job in dose}
    opened = queue.open_jobs(read(prepared), queue.Folder(tmp_path), elsewhere)
    assert [job.name for job in opened] == [
        "dose-16-seeds0to1",
        "extension-64-seeds0to1",
        "first_positions-64-seeds0to1",
    ]
    opened = queue.open_jobs(read(prepared), queue.Folder(tmp_path), {}, ("first", "dose-16"))
    assert [job.name for job in opened] == ["first_positions-64-seeds0to1", "dose-16-seeds0to1"]
    elsewhere["dose-64-seeds0to1"] = "0"
    with pytest.raises(ValueError, match="dose-64-seeds0to1 of the table was trained with other"):
        queue.open_jobs(read(prepared), queue.Folder(tmp_path), elsewhere)


@pytest.mark.slow
def test_a_job_that_fails_leaves_the_others_alone(
    prepared: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A base whose training diverges: what goes on from it is not begun, the control is."""
    text = DESIGN.replace("rate = 0.01", "rate = 1e30", 1)
    text = text.replace('name = "first_positions"', 'name = "first_positions"\nrate = 0.01')
    text = text.replace("contexts = [16, 64]", "contexts = [16]")
    path = tmp_path / "tiny.toml"
    path.write_text(text)
    failed = queue.run(path, prepared / "data", tmp_path / "jobs", ["cpu"])
    assert failed == ["dose-16-seeds0to1"]
    assert "lower the rate" in capfd.readouterr().out
    assert sorted(rows_of(tmp_path / "jobs")) == ["first_positions-64-seeds0to1"]


@pytest.mark.slow
def test_a_resumed_run_with_other_settings_is_refused_with_the_difference(
    prepared: Path, trained: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(DESIGN.replace("warm_up = 5", "warm_up = 6"))
    said = r"begun with training.warm_up = 5 and is asked to go on with 6: give the old setting"
    with pytest.raises(ValueError, match=said):
        queue.run(path, prepared / "data", trained, ["cpu"])
    stopped = tmp_path / "jobs"
    queue.run(prepared / "tiny.toml", prepared / "data", stopped, ["cpu"], stop_after=0)
    begun = stopped / "dose-64-seeds0to1"
    begun.mkdir(parents=True, exist_ok=True)
    (begun / "state.pt").write_bytes((trained / begun.name / "state.pt").read_bytes())
    with pytest.raises(ValueError, match=said):
        queue.run(path, prepared / "data", stopped, ["cpu"])


def test_a_second_queue_in_one_folder_is_refused(prepared: Path, tmp_path: Path) -> None:
    with (tmp_path / "queue.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another queue trains in"):
            queue.run(prepared / "tiny.toml", prepared / "data", tmp_path, ["cpu"])


# --- one job -------------------------------------------------------------------------------------


def job_of(prepared: Path, group: str, context: int = 64) -> Job:
    return next(j for j in read(prepared).jobs if j.group == group and j.context == context)


def test_cells_of_a_seed_share_weights_and_text(prepared: Path) -> None:
    short, long = (
        Trainer(job_of(prepared, "dose", context), data_of(prepared), "cpu") for context in (16, 64)
    )
    started = short.start()
    for step in range(4):
        targets = short.batch(step)[1]
        assert torch.equal(targets, long.batch(step)[1])
        assert torch.equal(targets[:2], targets[2:])
        assert not torch.equal(targets[0], targets[1])
    for tensor in started.weights:
        assert torch.equal(tensor[:2], tensor[2:])
    assert not torch.equal(started.weights.embed[0], started.weights.embed[1])


def test_an_extension_starts_at_its_bases_end_and_reads_on(prepared: Path, trained: Path) -> None:
    job = job_of(prepared, "extension")
    assert job.base is not None
    path = trained / job.base.job / "state.pt"
    begun = state.load_base(job, path, "cpu")
    base = read(prepared).job(job.base.job)
    ended = state.load(path, "cpu", base).state
    for ours, theirs in zip(begun.weights, ended.weights, strict=True):
        assert torch.equal(ours, theirs)
    assert any(moment.any() for moment in begun.moments.second)
    own, whole = (Trainer(j, data_of(prepared), "cpu") for j in (job, base))
    longer = replace(base.training, steps=base.training.steps + 10)
    whole = Trainer(replace(base, training=longer), data_of(prepared), "cpu")
    assert torch.equal(own.batch(3)[1], whole.batch(base.training.steps + 3)[1])
    correction = own.schedule[0, 1:]
    assert torch.allclose(correction, optimize.schedule(31, 1)[-1, 1:])
    with pytest.raises(ValueError, match="stands at step 30 of 31: train it first"):
        state.load_base(replace(job, base=replace(job.base, steps=31)), path, "cpu")


def test_training_lowers_the_loss(trained: Path) -> None:
    frame = table.read_rows(trained / "dose-16-seeds0to1" / "rows.csv.gz")
    loss = frame[(frame.measure == "loss") & (frame.length == 16)].groupby("step").value.mean()
    assert loss[30] < 0.5 * loss[0]


def test_measured_numbers_are_those_of_the_streams(prepared: Path) -> None:
    shape = Shape(blocks=2, d_model=32, heads=2, d_ff=48, vocabulary=64)
    first = ensemble.initial(shape, 4)
    loud = ensemble.Weights(*(w * 8 if (w != 1).any() else w for w in first))
    stacked = ensemble.stack([loud])
    prompts = tuple(PROMPTS)
    theta = torch.tensor([1e4])
    captured = next(measure.captures(stacked, prompts, theta, shape))
    found = {(v.measure, v.block, v.positions): v.value for v in measure.values(captured)}
    by_hand: dict[str, list[float]] = {"log_gain": [], "1-3": [], "angle": [], "sink": []}
    first_gains = []
    for prompt in PROMPTS[:-1]:
        *_, stream = ensemble.streams(stacked, torch.tensor(prompt)[None, None], theta, shape)
        x, y = stream.x[0, 0], stream.y[0, 0]
        logs = (y.norm(dim=-1) / x.norm(dim=-1)).log()
        angle = torch.cosine_similarity(x, y, dim=-1).arccos() / np.pi
        by_hand["log_gain"].append(float(logs[1:].mean()))
        by_hand["1-3"].append(float(logs[1:4].mean()))
        by_hand["angle"].append(float(angle[1:].mean()))
        mask = torch.ones(1, len(prompt), dtype=torch.bool)
        by_hand["sink"].append(float(measure.first_weight(stream, mask).mean()))
        first_gains.append(float(logs[0]))
    last = shape.blocks - 1
    assert found["massive_tokens", -1, ""] == 0  # else the means by hand would differ
    assert found["log_gain", last, ""] == pytest.approx(np.mean(by_hand["log_gain"]), rel=1e-4)
    assert found["log_gain", last, "1-3"] == pytest.approx(np.mean(by_hand["1-3"]), rel=1e-4)
    assert found["angle", last, ""] == pytest.approx(np.mean(by_hand["angle"]), rel=1e-4)
    assert found["sink", last, ""] == pytest.approx(np.mean(by_hand["sink"]), rel=1e-4)
    assert found["bos_log_gain", last, ""] == pytest.approx(first_gains[0], rel=1e-4)
    assert found["log_gain", last, "0"] == pytest.approx(first_gains[0], rel=1e-4)
    for place in ("", "0", "1-3", "16-63"):
        parts = found["attention", last, place] + found["mlp", last, place]
        assert parts == pytest.approx(found["log_gain", last, place], abs=1e-5)
    sigma = measure.sigma_max(stacked)[0]
    assert float(sigma) == pytest.approx(float(torch.linalg.svdvals(loud.unembed)[0]), rel=1e-5)


def test_long_windows_are_binned_up_to_their_length() -> None:
    assert list(measure.long_bins(8192))[-5:] == [
        "128-511",
        "512-1023",
        "1024-2047",
        "2048-4095",
        "4096-8191",
    ]
    limits = list(measure.long_bins(64).values())
    assert [low for low, _ in limits] == [0, 1, 4, 16]


# --- the table -----------------------------------------------------------------------------------


def test_collected_table_is_tidy_and_described(
    prepared: Path, trained: Path, tmp_path: Path
) -> None:
    path, record_path = table.collect(read(prepared), trained, {"train_tokens": 1}, tmp_path)
    frame = pd.read_parquet(path)
    assert list(frame) == list(table.COLUMNS)
    assert set(frame.measure.unique()) == set(table.MEASURES)
    assert not frame.duplicated([c for c in frame if c != "value"]).any()
    kept = frame[~frame.measure.isin(["train_loss", "bos_written_by", "bos_erased_by"])]
    assert np.isfinite(kept.value).all()
    record = json.loads(record_path.read_text())
    assert record["not_trained"] == []
    assert record["gpu_hours"] >= 0
    assert set(record["jobs"]) == {job.name for job in read(prepared).jobs}
    lines = table.summary(frame)
    assert len(lines) == 7
    assert (lines.seeds == 2).all()
    ended = frame[(frame.group == "extension") & (frame.step == 10)].tokens.unique()
    assert list(ended) == [40 * 128]


def test_jobs_of_another_machine_stay_in_the_table(
    prepared: Path, trained: Path, tmp_path: Path
) -> None:
    """Collecting from two folders in turn gives the table of one folder with all jobs."""
    whole = pd.read_parquet(table.collect(read(prepared), trained, {}, tmp_path)[0])
    names = [job.name for job in read(prepared).jobs]
    halves = (tmp_path / "one", tmp_path / "two")
    for half, own in zip(halves, (names[:2], names[2:]), strict=True):
        for name in own:
            shutil.copytree(trained / name, half / name)
    out = tmp_path / "out"
    out.mkdir()
    table.collect(read(prepared), halves[0], {}, out)
    assert json.loads((out / "tiny.json").read_text())["not_trained"] == names[2:]
    path, record = table.collect(read(prepared), halves[1], {}, out)
    pd.testing.assert_frame_equal(pd.read_parquet(path), whole)
    jobs = json.loads(record.read_text())["jobs"]
    assert list(jobs) == names
    changed = design.read(prepared / "tiny.toml")
    first = replace(changed.jobs[0], training=replace(changed.jobs[0].training, rate=0.5))
    changed = replace(changed, jobs=(first, *changed.jobs[1:]))
    with pytest.raises(ValueError, match="trained with other settings"):
        table.collect(changed, halves[1], {}, out)


def test_nothing_to_collect_is_said(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no job of tiny is finished"):
        table.collect(read(prepared), tmp_path, {}, tmp_path)
