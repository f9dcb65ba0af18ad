"""Measure small models in worker processes: the same numbers, whatever becomes of a worker."""

import multiprocessing
import os
import signal
from concurrent.futures import Executor, Future, ProcessPoolExecutor

import numpy as np
import pytest
from planting.planted_blocks import TEXTS, planted_checkpoint
from planting.runs import drawing_only, planted_run

from gainlens.core.presets import PRESETS
from gainlens.core.spec import ComparisonSpec, ModelSpec, Rule
from gainlens.models import sources
from gainlens.models.sizes import all_small, is_small
from gainlens.results.values import to_json
from gainlens.runs import workers
from gainlens.runs.pipeline import compare
from gainlens.runs.rerun import differences
from gainlens.runs.workers import Workers, result_of, started_for
from gainlens.runs.writing import write_run

TWINS = ComparisonSpec(name="twins", models=PRESETS["twins"])


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    models = [
        ModelSpec(key=role, hf_name=str(planted_checkpoint(folder / role, gain).folder), role=role)
        for role, gain in (("short", 1.25), ("long", 0.6), ("control", 1.1))
    ]
    prompts = folder / "prompts.txt"
    prompts.write_text("\n".join(TEXTS), encoding="utf-8")
    return ComparisonSpec(
        name="planted", models=tuple(models), prompts=str(prompts), rule=Rule(resamples=200)
    )


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(workers, "_cores", lambda: 2)
    monkeypatch.setattr(workers, "_in_parallel", lambda spec: True)


@pytest.mark.slow
def test_helpersgive_the_numbers_of_a_serial_run(spec, two_cores):
    serial = compare(spec)
    with started_for(spec) as helpers:
        assert list(helpers.measuring) == ["long"]
        parallel = compare(spec, workers=helpers)
        assert helpers.measuring["long"].result().report.checkpoint.name == "long"
    said = [{"reports": to_json(run.reports), "verdict": to_json(run.verdict)}
            for run in (serial, parallel)]  # fmt: skip
    assert differences(*said) == ()
    for key, captured in serial.captures.items():
        np.testing.assert_array_equal(captured.gram, parallel.captures[key].gram)
        assert captured.token_text == parallel.captures[key].token_text


@pytest.mark.slow
@pytest.mark.fault("a worker process is killed", "the main process measures its models")
def test_a_killed_worker_is_done_without(spec, two_cores):
    with started_for(spec) as helpers:
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid, signal.SIGKILL)
        assert result_of(helpers, "long") is None
        run = compare(spec, workers=helpers)
    assert [report.behaviour for report in run.reports] == ["EXPANDS", "CONTRACTS", "EXPANDS"]


@pytest.mark.slow
def test_a_model_that_a_worker_cannot_measure_is_left_and_no_worker_outlives_the_context(
    spec, two_cores
):
    broken = ModelSpec(key="broken", hf_name="/no/such/folder", role="reference")
    models = (spec.models[0], broken, spec.models[1])

    def fail():
        with started_for(spec.model_copy(update={"models": models})) as helpers:
            assert list(helpers.measuring) == ["broken"]
            assert result_of(helpers, "broken") is None
            assert result_of(helpers, "short") is None
            assert len(multiprocessing.active_children()) == 1
            raise ValueError("mistake")

    with pytest.raises(ValueError, match="mistake"):
        fail()
    assert multiprocessing.active_children() == []
    assert result_of(None, "short") is None


def test_only_small_models_are_measured_in_workers(monkeypatch, tmp_path):
    assert workers._in_parallel(TWINS)
    assert workers._in_parallel(TWINS.model_copy(update={"tokens": 1024}))
    for other in (
        {"tokens": 1025},
        {"prompts": "mine.txt"},
        {"models": PRESETS["llama"]},
        {"models": (*TWINS.models, PRESETS["llama"][0])},
    ):
        assert not workers._in_parallel(TWINS.model_copy(update=other))
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not workers._in_parallel(TWINS)
    (tmp_path / "config.json").write_text('{"hidden_size": 512}')
    assert all_small([str(tmp_path)], 1024)
    (tmp_path / "config.json").write_text('{"hidden_size": 513}')
    assert not all_small([str(tmp_path)], 1)
    for text in ("{", "{}", '{"hidden_size": null}', "[]"):
        (tmp_path / "config.json").write_text(text)
        assert not all_small([str(tmp_path)], 1)
    assert not all_small(["gainlens:nonesuch"], 1)
    assert is_small(512, 1024)
    assert not is_small(512, 1025)


def test_no_more_processes_than_threads_are_allowed(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for threads, cores in (("1", 1), ("3", 3), ("16", 8), ("", 8), ("0", 8), ("two", 8)):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        assert workers._cores() == cores


def test_the_tests_themselves_start_no_workers():
    assert workers._cores() == 1
    assert sources.TWINS.is_dir()


@pytest.mark.slow
@pytest.mark.fault("a worker process is killed while it draws", "the main process draws the rest")
def test_workers_draw_their_share_and_a_dead_one_is_done_without(tmp_path):
    run = planted_run()
    with (
        drawing_only("headline", "gain_curve", "unembed_spectrum", "rope_wavelengths"),
        ProcessPoolExecutor(1, mp_context=workers._SPAWN) as pool,
    ):
        write_run(tmp_path / "alone", tmp_path / "alone" / "figures", run)
        helping = workers.Workers(pool=pool)
        write_run(tmp_path / "shared", tmp_path / "shared" / "figures", run, helping)
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid, signal.SIGKILL)
        write_run(tmp_path / "killed", tmp_path / "killed" / "figures", run, helping)
    for file in [path for path in (tmp_path / "alone").rglob("*") if path.is_file()]:
        for other in ("shared", "killed"):
            again = tmp_path / other / file.relative_to(tmp_path / "alone")
            assert again.read_bytes() == file.read_bytes(), again


def test_a_task_that_no_process_has_begun_is_done_here():
    class Busy(Executor):
        """A pool whose processes never begin."""

        def submit(self, task, /, *args, **kwargs):
            return Future()

    assert Workers(pool=Busy()).begin(lambda: "here")() == "here"
