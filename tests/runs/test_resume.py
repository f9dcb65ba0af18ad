"""An interrupted comparison goes on where it was, and ends as if nothing had happened."""

import contextlib
import dataclasses
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from planting.comparing import same
from planting.planted_blocks import TEXTS, planted_checkpoint
from planting.runs import planted_run

from gainlens.core.spec import Ablation, ComparisonSpec, ModelSpec, Rule
from gainlens.report.progress import ProgressWatch
from gainlens.results import result_json as store
from gainlens.runs import pipeline, resume
from gainlens.runs.inputs import open_inputs
from gainlens.runs.measuring import Measured, measure_model
from gainlens.runs.pipeline import compare
from gainlens.runs.resume import PARTIAL, Partials

NO_INTERVENTIONS = {"sweep": 0, "theta": ()}
DEFAULT_INTERVENTIONS = {"sweep": 1, "theta": None}


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    gains = {"short": 1.25, "long": 0.6, "reference": 1.1}
    models = []
    for role, gain in gains.items():
        theta = 5e5 if role == "long" else 1e4
        planted = planted_checkpoint(folder / role, gain, theta=theta)
        models.append(ModelSpec(key=role, hf_name=str(planted.folder), role=role))
    prompts = folder / "prompts.txt"
    prompts.write_text("\n".join(TEXTS), encoding="utf-8")
    return ComparisonSpec(
        name="planted",
        models=tuple(models),
        prompts=str(prompts),
        rule=Rule(resamples=200),
        backend="native",
        **NO_INTERVENTIONS,
    )


def lasting(comparison):
    """The result, date and timing aside, as its file says it."""
    document = store.result_json(comparison)
    for key in ("date", "seconds"):
        del document[key]
    return json.dumps(document, allow_nan=False)


@pytest.fixture(scope="module")
def uninterrupted(spec):
    return lasting(compare(spec))


@pytest.fixture
def measured(monkeypatch):
    """Keys of the models that were measured; `stop_at` says where, and how, it ends."""

    class Log(list):
        stop_at: tuple[str, BaseException] | None = None

    log = Log()
    real = pipeline.measure_model

    def measure(spec, inputs, thetas, progress):
        if log.stop_at and log.stop_at[0] == inputs.model.key:
            raise log.stop_at[1]
        log.append(inputs.model.key)
        return real(spec, inputs, thetas, progress)

    monkeypatch.setattr(pipeline, "measure_model", measure)
    return log


def run(spec, folder, told=None):
    with Partials(folder, spec, (told if told is not None else []).append) as keep:
        return compare(spec, None, keep)


def interrupt(spec, folder, measured, error, at="reference"):
    measured.stop_at = (at, error)
    with pytest.raises(type(error)):
        run(spec, folder)
    measured.stop_at = None
    measured.clear()


def kept(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / PARTIAL).glob("*") if path.is_dir())


class Counting(ProgressWatch):
    """Remember what was announced and what was done."""

    def __init__(self):
        self.announced, self.done = [], []

    @contextlib.contextmanager
    def model(self, name, prompts):
        self.announced.append(prompts)
        self.done.append(0)
        yield

    def advance(self, prompts):
        self.done[-1] += prompts


@pytest.mark.parametrize(
    ("asked", "passes"),
    [
        ({"sweep": 0, "theta": ()}, (1, 1)),
        ({"ablate": (Ablation(site="blocks.-1.hook_mlp_out", how="zero"),)}, (4, 4)),
        # the long model's own theta is neither of the two
        ({"sweep": 2, "theta": (1e3, 1e4)}, (3, 4)),
    ],
)
def test_the_progress_ends_where_it_was_announced_to(spec, asked, passes):
    watch = Counting()
    pair = {"models": spec.models[:2], **DEFAULT_INTERVENTIONS}
    compare(spec.model_copy(update={**pair, **asked}), watch)
    assert watch.done == watch.announced == [n * len(TEXTS) for n in passes]


def test_keeping_changes_no_number(spec, tmp_path, uninterrupted):
    assert lasting(run(spec, tmp_path)) == uninterrupted
    assert list(tmp_path.iterdir()) == []


def test_the_next_run_measures_the_rest_and_ends_the_same(spec, tmp_path, measured, uninterrupted):
    interrupt(spec, tmp_path, measured, KeyboardInterrupt())
    assert len(kept(tmp_path)) == 2
    told = []
    assert lasting(run(spec, tmp_path, told)) == uninterrupted
    assert measured == ["reference"]
    assert told == [
        "resumed: short, measured before the interruption",
        "resumed: long, measured before the interruption",
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def one_kept(spec, tmp_path_factory):
    """The run folder of a comparison that ended after its first model."""
    folder = tmp_path_factory.mktemp("kept")
    inputs = open_inputs(spec)["short"]
    keep = Partials(folder, spec, print)
    assert keep.take(inputs.model, inputs.prompts) is None
    keep.add(inputs.model, inputs.prompts, measure_model(spec, inputs))
    return folder


@pytest.mark.fault(
    "a finished model of an interrupted run is damaged on disk",
    "it is measured again, and the command says so",
)
@pytest.mark.parametrize("file", ["report.json", "tokens.parquet", "heads.parquet", "sums.json"])
@pytest.mark.parametrize("how", ["whole", "truncated", "empty", "one byte", "gone"])
def test_what_is_damaged_is_not_believed(spec, one_kept, tmp_path, file, how):
    shutil.copytree(one_kept, tmp_path, dirs_exist_ok=True)
    (place,) = kept(tmp_path)
    whole = (place / file).read_bytes()
    middle = len(whole) // 2
    left = {
        "whole": whole,
        "truncated": whole[:middle],
        "empty": b"",
        "one byte": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
    }
    (place / file).unlink()
    if how != "gone":
        (place / file).write_bytes(left[how])
    told = []
    encoded = open_inputs(spec)["short"].prompts
    found = Partials(tmp_path, spec, told.append).take(spec.models[0], encoded)
    if how == "whole":
        assert found is not None
        assert told == ["resumed: short, measured before the interruption"]
    else:
        assert found is None
        assert told == ["damaged: what was kept of short; it is measured again"]
        assert kept(tmp_path) == []


def test_what_is_damaged_is_measured_again(spec, one_kept, tmp_path, measured, uninterrupted):
    shutil.copytree(one_kept, tmp_path, dirs_exist_ok=True)
    (place,) = kept(tmp_path)
    (place / "report.json").write_text("{}")
    assert lasting(run(spec, tmp_path)) == uninterrupted
    assert measured == ["short", "long", "reference"]


def test_a_half_written_one_is_cleared_away(spec, tmp_path, measured, uninterrupted):
    (tmp_path / PARTIAL / "new").mkdir(parents=True)
    (tmp_path / PARTIAL / "new" / "report.json").write_text("{")
    assert lasting(run(spec, tmp_path)) == uninterrupted
    assert list(tmp_path.iterdir()) == []


def fingerprint(spec, folder=Path("nowhere"), key="short"):
    inputs = open_inputs(spec)[key]
    return Partials(folder, spec, print).fingerprint(inputs.model, inputs.prompts)


@pytest.mark.fault(
    "an interrupted run that goes on under other settings, weights or versions",
    "nothing of it is taken up",
)
def test_the_fingerprint_knows_everything_that_numbers_depend_on(spec, tmp_path, monkeypatch):
    own = fingerprint(spec)
    assert fingerprint(spec) == own
    others = {
        "seed": spec.model_copy(update={"rule": Rule(resamples=200, seed=1)}),
        "split": spec.model_copy(update={"rule": Rule(resamples=200, split="path")}),
        "backend": spec.model_copy(update={"backend": "bridge"}),
        "dtype": spec.model_copy(update={"dtype": "bfloat16"}),
        "sweep": spec.model_copy(update={"sweep": 1}),
        "fewer models": spec.model_copy(update={"models": spec.models[:2]}),
        "tokens": spec.model_copy(update={"tokens": 8}),
    }
    found = {name: fingerprint(other) for name, other in others.items()}
    found["key"] = fingerprint(spec, key="long")
    Path(spec.prompts).write_text("\n".join(TEXTS[::-1]), encoding="utf-8")
    found["prompts"] = fingerprint(spec)
    Path(spec.prompts).write_text("\n".join(TEXTS), encoding="utf-8")
    assert fingerprint(spec) == own
    monkeypatch.setattr(resume, "environment", lambda: {"torch": "another"})
    found["environment"] = fingerprint(spec)
    monkeypatch.undo()
    monkeypatch.setattr(resume, "_code_stamp", lambda: "another gainlens")
    found["code"] = fingerprint(spec)
    assert len({own, *found.values()}) == 1 + len(found), found


@pytest.mark.fault(
    "weights replaced by others of the same size and time",
    "nothing that was kept of the old ones is taken up",
)
def test_weights_of_the_same_size_and_time_are_other_weights(spec, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(spec.models[0].hf_name, folder)
    own = resume.weights_stamp(str(folder), spec)
    file = folder / "model.safetensors"
    before = file.stat()
    weights = bytearray(file.read_bytes())
    weights[-1] ^= 1
    file.write_bytes(weights)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert file.stat().st_size == before.st_size
    assert resume.weights_stamp(str(folder), spec) != own


def test_a_gguf_file_is_stamped_by_its_size_and_time_and_an_adapter_with_its_base(spec, tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    settings = {"base_model_name_or_path": str(file)}
    (adapter / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    stamps = [resume.weights_stamp(str(path), spec) for path in (file, adapter)]
    assert stamps == [resume.weights_stamp(str(path), spec) for path in (file, adapter)]
    file.write_bytes(b"GGUF, another")
    changed = [resume.weights_stamp(str(path), spec) for path in (file, adapter)]
    assert all(new != old for new, old in zip(changed, stamps, strict=True))


@pytest.mark.fault(
    "a checkpoint is written while it is measured",
    "refused: the numbers may be of neither state",
)
def test_a_checkpoint_that_changes_under_the_measurement_is_an_error(spec, tmp_path, monkeypatch):
    copied = tmp_path / "model"
    shutil.copytree(spec.models[0].hf_name, copied)
    changing = spec.models[0].model_copy(update={"hf_name": str(copied)})
    spec = spec.model_copy(update={"models": (changing, *spec.models[1:])})
    real = pipeline.measure_model

    def measure(*arguments):
        (copied / "config.json").touch()
        return real(*arguments)

    monkeypatch.setattr(pipeline, "measure_model", measure)
    with pytest.raises(ValueError, match="changed during the measurement"):
        run(spec, tmp_path / "run")
    assert not (tmp_path / "run" / PARTIAL).exists()


def test_a_mistake_leaves_nothing_behind_but_what_was_there(spec, tmp_path, measured):
    mistake = ValueError("no such thing")
    interrupt(spec, tmp_path, measured, mistake)
    assert list(tmp_path.iterdir()) == []
    interrupt(spec, tmp_path, measured, KeyboardInterrupt(), at="long")
    before = kept(tmp_path)
    interrupt(spec, tmp_path, measured, mistake)
    assert kept(tmp_path) == before


def test_a_fault_of_the_machine_keeps_what_is_done(spec, tmp_path, measured):
    fault = ValueError("the hub cannot be reached")
    fault.__cause__ = ConnectionError("offline")
    interrupt(spec, tmp_path, measured, fault)
    assert len(kept(tmp_path)) == 2


@pytest.mark.fault(
    "Ctrl-C in the middle of a comparison", "finished models are kept, and the user is told"
)
def test_an_interruption_says_that_work_is_kept(spec, tmp_path, measured):
    measured.stop_at = ("long", KeyboardInterrupt())
    told = []
    with pytest.raises(KeyboardInterrupt):
        run(spec, tmp_path, told)
    assert told == ["finished models are kept: the same command goes on from there"]


@pytest.mark.parametrize("key", ["alpha", "beta <img src=x onerror=alert(2)>"])
def test_every_bit_of_a_measurement_comes_back(tmp_path, key):
    """NaN, infinity, what a capture may lack, and a key that is no file name."""
    planted = planted_run()
    report = next(report for report in planted.reports if report.checkpoint.name == key)
    if key == "alpha":
        waves = np.array([1.0, np.inf, np.nan])
        report = dataclasses.replace(
            report, rope=dataclasses.replace(report.rope, wavelengths=waves)
        )
    measured = Measured(report, planted.decompositions[key])
    (tmp_path / "model").mkdir()
    models = [
        model.model_copy(update={"hf_name": str(tmp_path / "model")})
        for model in planted.spec.models
    ]
    spec = planted.spec.model_copy(update={"models": tuple(models)})
    model = next(model for model in models if model.key == key)
    with Partials(tmp_path / "run", spec, print) as keep:
        assert keep.take(model, report.prompts) is None
        same(report, keep.add(model, report.prompts, measured))
        same(measured.decomposition.capture, keep.captures[key])
        again = Partials(tmp_path / "run", spec, print)
        same(report, again.take(model, report.prompts))
    assert not (tmp_path / "run" / PARTIAL).exists()
    same(measured.decomposition.capture, again.captures[key])  # its files stay open


@pytest.mark.fault("a full disk between two models", "one sentence; nothing half written")
def test_a_full_disk_is_one_sentence_and_nothing_half_written(
    spec, tmp_path, measured, monkeypatch
):
    interrupt(spec, tmp_path, measured, KeyboardInterrupt(), at="long")

    def full(table, *_):
        table._path.write_bytes(b"PAR1")
        raise OSError(28, os.strerror(28), str(table._path))

    monkeypatch.setattr(resume.TokenTable, "add", full)
    with pytest.raises(ValueError, match=r"cannot write .*: No space left on device; make room"):
        run(spec, tmp_path)
    assert len(kept(tmp_path)) == 1
    assert not (tmp_path / PARTIAL / "new").exists()


def test_a_measurement_can_cross_to_another_process(spec):
    measured = measure_model(spec, open_inputs(spec)["short"])
    same(measured, pickle.loads(pickle.dumps(measured)))  # noqa: S301  our own bytes
