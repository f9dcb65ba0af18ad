"""Small models side by side: the same numbers, whatever becomes of the other process."""

import multiprocessing
import os
import signal

import numpy as np
import pytest
from planting.planted_blocks import TEXTS, planted_checkpoint

from gainlens.core.presets import PRESETS
from gainlens.core.spec import ComparisonSpec, ModelSpec, Rule
from gainlens.models import sources
from gainlens.models.sizes import all_small, is_small
from gainlens.results.plain import plain
from gainlens.runs import workers as beside
from gainlens.runs.measuring import measure
from gainlens.runs.pipeline import compare, encode_for_all
from gainlens.runs.rerun import differences
from gainlens.runs.workers import Helper, helpers

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
    monkeypatch.setattr(beside, "_cores", lambda: 2)
    monkeypatch.setattr(beside, "_side_by_side", lambda spec: True)


@pytest.mark.slow
def test_side_by_side_gives_the_numbers_of_one_after_the_other(spec, two_cores):
    asked = []

    def elsewhere(key):
        found = process.measured(key)
        asked.append((key, found is not None))
        return found

    alone = compare(spec)
    with helpers(spec) as process:
        together = compare(spec, elsewhere=elsewhere)
    assert asked == [("short", False), ("long", True), ("control", False)]
    said = [{"reports": plain(run.reports), "verdict": plain(run.verdict)}
            for run in (alone, together)]  # fmt: skip
    assert differences(*said) == ()
    for key, captured in alone.captures.items():
        np.testing.assert_array_equal(captured.gram, together.captures[key].gram)
        assert captured.token_text == together.captures[key].token_text


@pytest.mark.slow
@pytest.mark.fault("a process that measures beside is killed", "its models are measured here")
def test_a_killed_helper_is_done_without(spec):
    helper = Helper(spec, ["long", "control"])
    os.kill(helper._process.pid, signal.SIGKILL)
    assert helper.measured("long") is None
    assert helper.measured("control") is None
    helper.stop()
    assert compare(spec, elsewhere=helpers_that_know_nothing).verdict.outcome == "CONFIRMED"


def helpers_that_know_nothing(key):
    return None


@pytest.mark.slow
def test_a_model_that_cannot_be_measured_beside_is_left_to_others(spec):
    """And one that nobody asked for, since it was kept, is passed over."""
    broken = ModelSpec(key="broken", hf_name="/no/such/folder", role="reference")
    helper = Helper(spec.model_copy(update={"models": (*spec.models, broken)}), ["broken", "long"])
    assert helper.measured("broken") is None  # texts cannot be encoded for it: nothing comes
    helper.stop()
    helper = Helper(spec, ["long", "control"])
    mine = measure(spec, spec.models[2], encode_for_all(spec)["control"])
    theirs = helper.measured("control")
    assert theirs is not None
    assert differences({"r": plain(mine.report)}, {"r": plain(theirs.report)}) == ()
    helper.stop()


@pytest.mark.slow
def test_no_process_outlives_the_context(spec, two_cores):
    def fail():
        with helpers(spec):
            assert len(multiprocessing.active_children()) == 1
            raise ValueError("mistake")

    with pytest.raises(ValueError, match="mistake"):
        fail()
    assert multiprocessing.active_children() == []


def test_only_what_is_small_is_measured_side_by_side(monkeypatch, tmp_path):
    assert beside._side_by_side(TWINS)
    assert beside._side_by_side(TWINS.model_copy(update={"tokens": 1024}))
    for other in (
        {"tokens": 1025},
        {"prompts": "mine.txt"},
        {"models": PRESETS["llama"]},
        {"models": (*TWINS.models, PRESETS["llama"][0])},
    ):
        assert not beside._side_by_side(TWINS.model_copy(update=other))
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not beside._side_by_side(TWINS)
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
        assert beside._cores() == cores
    started = []
    monkeypatch.setattr(beside, "Helper", lambda spec, keys: started.append(keys) or FakeHelper())
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with helpers(TWINS) as process:
        assert process.measured(TWINS.models[0].key) is None
    keys = [model.key for model in TWINS.models]
    assert started == [[keys[1]], [keys[2]]]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with helpers(TWINS):
        assert len(started) == 2


class FakeHelper(Helper):
    def __init__(self):
        self.keys = ()

    def stop(self):
        pass


def test_the_tests_themselves_start_no_helpers():
    assert beside._cores() == 1
    assert sources.TWINS.is_dir()
