"""Design files: the jobs that they make, and what is refused."""

import sys
from pathlib import Path

import pytest
from training import cost, design, settings
from training.design import Design
from training.ensemble import Shape
from training.layout import Layout

TINY = """
name = "tiny"

[training]
steps = 40
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
seeds = [0, 1, 2]

[[group]]
name = "extension"
base = "dose"
base_context = 16
base_thetas = [10_000, 500_000]
contexts = [64]
thetas = [500_000, 5_000_000]
seeds = [0, 1, 2]
steps = 10
"""


def read(folder: Path, text: str = TINY) -> Design:
    path = folder / "tiny.toml"
    path.write_text(text)
    return design.read(path)


def test_the_shipped_design_is_the_experiment_of_the_docs() -> None:
    jobs = design.read(design.path_of("dose_response")).jobs
    by_group: dict[str, set[tuple[int, float, int]]] = {}
    for job in jobs:
        cells = {(r.cell.context, r.cell.theta, r.seed) for r in job.replicas}
        assert not cells & by_group.setdefault(job.group, set())
        by_group[job.group] |= cells
        assert len(job.points) >= (7 if job.base else 10)
        assert job.training.tokens_per_step == 16384
    assert len(by_group["dose"]) == 6 * 2 * 8
    tokens = {job.group: job.training.steps * 16384 for job in jobs}
    assert tokens["extension_kept"] == tokens["dose"] / 4 == 15000 * 16384 / 4
    for group in ("extension_kept", "extension_raised", "extension_512"):
        assert len(by_group[group]) == 16
    assert {cell[0] for cell in by_group["first_positions"]} == {512, 1024, 2048, 4096, 8192}
    assert len(by_group["large"]) == 6


def test_the_shipped_twins_can_be_trained_again() -> None:
    from training import ship

    jobs = design.read(design.path_of("shipped_twins")).jobs
    cells = {replica.cell for job in jobs for replica in job.replicas}
    assert {(cell.context, cell.theta) for cell in ship.SHIPPED} == {
        (cell.context, cell.theta) for cell in cells
    }
    assert {cell.context for cell in cells if cell.bos_every == 8} == {512}
    assert all(job.training.tokens_per_step == 16384 for job in jobs)


def test_jobs_take_the_first_seeds_of_all_contexts_first(tmp_path: Path) -> None:
    jobs = read(tmp_path).jobs
    assert [job.name for job in jobs] == [
        "dose-64-seeds0to1",
        "dose-16-seeds0to1",
        "dose-64-seeds2to2",
        "dose-16-seeds2to2",
        "extension-64-seeds0to1",
        "extension-64-seeds2to2",
    ]
    base = jobs[4].base
    assert base is not None
    assert base.job == "dose-16-seeds0to1"
    pairs = zip(jobs[4].replicas, base.replicas, strict=True)
    for replica, start in pairs:
        assert start.cell.context == 16
        assert (start.cell.theta, replica.cell.theta) in {(1e4, 5e5), (5e5, 5e6)}
        assert start.seed == replica.seed


@pytest.mark.parametrize("job", design.read(design.path_of("dose_response")).jobs, ids=str)
def test_a_control_has_as_many_first_positions_as_context_256(job: design.Job) -> None:
    if not job.starts_of:
        assert set(job.contexts_of(3)) == {job.context}
        return
    steps, window = job.training.steps, job.training.window
    layouts = dict.fromkeys(map(job.contexts_of, range(steps)), 0)
    for step in range(steps):
        layouts[job.contexts_of(step)] += 1
    starts = sum(Layout.of(c, window).sequences * count for c, count in layouts.items())
    assert starts == pytest.approx(steps * job.training.tokens_per_step / 256, rel=1e-3)
    assert job.short_share < 0.25  # most tokens lie in full-length sequences
    assert all(contexts.count(job.short) < 2 for contexts in layouts)  # spread evenly


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "steps = 40",
            "step = 40",
            r"\[training\] of tiny.toml has an unknown key 'step'; it know",
        ),
        ("lengths =", "length =", "unknown key 'length'"),
        (
            'name = "dose"',
            'name = "dose"\nseed = 1',
            "group 'dose' of tiny.toml has an unknown key",
        ),
        (
            "seeds = [0, 1, 2]",
            "shape = { width = 4 }\nseeds = [0]",
            "shape of group 'dose'.*'width'",
        ),
        ('name = "tiny"', 'name = "tiny"\nspeed = 1', "the design tiny.toml has an unknown key"),
        ("contexts = [16, 64]", "contexts = [24]", "context 24 does not divide the window of 64"),
        ("lengths = [16, 64]", "lengths = [48]", "length 48 does not divide"),
        (
            "held_out_windows = 2",
            "held_out_windows = 3",
            "3 is no multiple of windows_per_step = 2",
        ),
        (
            "base_context = 16",
            "base_context = 32",
            "goes on from context 32 of group 'dose', but no",
        ),
        ("base_thetas = [10_000, 500_000]", "base_thetas = [10_000]", "as many base_thetas"),
        ("contexts = [16, 64]", "cells = [[16, 1]]\ncontexts = [16]", "either cells, or contexts"),
    ],
)
def test_a_design_that_does_not_fit_together_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in TINY
    with pytest.raises(ValueError, match=message):
        read(tmp_path, TINY.replace(old, new, 1))


def test_on_the_command_line_a_mistake_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training import cli

    path = tmp_path / "tiny.toml"
    path.write_text(TINY.replace("steps = 40", "step = 40", 1))
    monkeypatch.setattr(sys, "argv", ["train_twins.py", "plan", str(path)])
    with pytest.raises(SystemExit, match="has an unknown key 'step'"):
        cli.main()


def test_an_impossible_memory_need_is_refused_with_both_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = read(tmp_path).jobs[0]
    cost.check_memory(job, "cpu")
    monkeypatch.setattr(cost, "memory_of", lambda device: 50_000_000)
    with pytest.raises(ValueError, match=r"needs about \d+ GB and cpu has 0 GB: lower replicas_pe"):
        cost.check_memory(job, "cpu")


def test_weights_and_operations_are_counted() -> None:
    """2.66M weights; the arithmetic by hand: 6 per weight read, 6 d n per block for attention."""
    from training import ensemble

    shape = Shape()
    drawn = ensemble.initial(shape, 0)
    assert shape.weights == sum(tensor.numel() for tensor in drawn) == 2_656_384
    job = design.read(design.path_of("dose_response")).jobs[0]
    read_per_token = shape.weights - 4096 * 128 - 17 * 128
    by_hand = 6 * read_per_token + 6 * 8 * 128 * job.context
    assert job.context == 8192
    assert cost.flops_per_token(job) == by_hand


def test_other_settings_are_refused_with_the_difference(tmp_path: Path) -> None:
    import json

    job = read(tmp_path).jobs[0]
    stored = json.loads(json.dumps(job.settings))
    settings.check_same(job.name, stored, job.settings)
    stored["training"]["rate"] = 0.02
    with pytest.raises(ValueError, match=r"begun with training.rate = 0.02 and .* with 0.01"):
        settings.check_same(job.name, stored, job.settings)
