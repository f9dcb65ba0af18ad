"""The same command, seed and machine: the same files to the bit; and what a rerun says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from planting import comparing_elsewhere as elsewhere
from planting.planted_blocks import TEXTS, planted_checkpoint
from planting.runs import drawing_only

from gainlens.cli.compare import compare_command, run
from gainlens.results.files import write_json
from gainlens.runs.rerun import TIMING, differences, rerun

DRAWN = ("headline", "massive_lifecycle", "theta_dose")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Two checkpoints, prompts, and the same command run here and in another process."""
    base = tmp_path_factory.mktemp("reproducible")
    planted_checkpoint(base / "short", 1.25)
    planted_checkpoint(base / "long", 0.6, theta=5e5)
    (base / "prompts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    flags = ["--short", "short", "--long", "long", "--prompts", "prompts.txt"]
    flags += ["--resamples", "200", "--ablate", "blocks.-1.hook_mlp_out=resample", "--quiet"]
    with pytest.MonkeyPatch.context() as patched, drawing_only(*DRAWN):
        patched.chdir(base)
        patched.setattr(sys, "argv", [str(elsewhere.SCRIPT)])  # the command is part of the result
        assert run(compare_command, [*flags, "--out", "1"]) == 0
    command = [sys.executable, elsewhere.__file__, ",".join(DRAWN), *flags, "--out", "2"]
    hashes = {"PYTHONHASHSEED": "2"}  # another order of every set of strings
    subprocess.run(command, check=True, cwd=base, env=os.environ | hashes)
    return base


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text("utf-8"))


def test_two_processes_write_the_same_result_to_the_bit(base):
    one, other = (
        [
            line
            for line in (base / number / "result.json").read_text("utf-8").splitlines()
            if not line.startswith(tuple(f'  "{key}":' for key in TIMING))
        ]
        for number in ("1", "2")
    )
    assert len(one) == len((base / "1" / "result.json").read_text("utf-8").splitlines()) - 2
    assert one == other


def test_two_processes_write_the_same_tables_and_figures(base):
    files = {
        path.relative_to(base / "1")
        for path in (base / "1").rglob("*")
        if path.suffix in (".parquet", ".csv", ".svg", ".png")
    }
    assert {Path("tokens.parquet"), Path("heads.parquet"), Path("figures/headline.svg")} <= files
    for file in files:
        assert (base / "1" / file).read_bytes() == (base / "2" / file).read_bytes(), file


def test_the_result_holds_all_that_a_repetition_needs(base):
    document = result(base / "1")
    assert document["spec"]["rule"]["seed"] == 0
    assert {"torch", "transformers", "transformer-lens", "numpy", "threads", "cpu", "gpu"} <= set(
        document["environment"]
    )
    for model in document["models"].values():
        assert len(model["prompts"]["sha256"]) == 64
        assert model["checkpoint"]["backend"] in ("hooked", "bridge", "native")
        assert len(model["checkpoint"]["weights"]) == 64


@pytest.mark.fault("a rerun whose numbers differ", "said: what differs, and why")
def test_a_rerun_says_what_differs_and_why(base, one_figure, tmp_path, monkeypatch):
    """Three values of the run before were changed: every other one is the same."""
    monkeypatch.chdir(base)
    document = result(base / "1")
    document["models"]["short"]["layers"][2]["gain"] *= 1.001
    document["environment"]["torch"] = "1.0"
    document["models"]["long"]["checkpoint"]["weights"] = "0" * 64
    changed = tmp_path / "changed"
    changed.mkdir()
    for name in ("tokens.parquet", "heads.parquet"):
        (changed / name).write_bytes((base / "1" / name).read_bytes())
    write_json(changed / "result.json", document)
    found = rerun(changed, tmp_path / "again")
    places = {each.place: each for each in found.differences}
    gain = places["models.short.layers[2].gain"]
    assert gain.relative == pytest.approx(0.001 / 1.001, rel=1e-6)
    assert found.largest == gain.relative
    assert set(places) == {
        "models.short.layers[2].gain", "environment.torch", "models.long.checkpoint.weights",
    }  # fmt: skip
    assert (tmp_path / "again" / "result.json") in found.written
    assert len(found.caveats) == 2
    assert found.caveats[0].startswith("torch was 1.0, is ")
    assert found.caveats[1].startswith("weights of long: was 000")
    assert not found.same


@pytest.mark.fault(
    "a rerun, and the prompt file has changed",
    "refused: the hash then and now",
)
def test_a_rerun_of_other_prompts_is_refused(base, tmp_path, monkeypatch):
    monkeypatch.chdir(base)
    whole = (base / "prompts.txt").read_text("utf-8")
    (base / "prompts.txt").write_text(whole + "\nOne more.\n", encoding="utf-8")
    try:
        with pytest.raises(ValueError, match=r"prompts 'prompts.txt' are no longer those of the"):
            rerun("1", tmp_path / "again")
    finally:
        (base / "prompts.txt").write_text(whole, encoding="utf-8")
    assert not (tmp_path / "again").exists()


@pytest.mark.fault("a rerun into the run's own folder", "refused")
def test_a_rerun_into_the_run_itself_is_refused(base):
    before = (base / "1" / "result.json").read_bytes()
    with pytest.raises(ValueError, match="would replace the run that it is compared with"):
        rerun(base / "1", base / "2" / ".." / "1")
    assert (base / "1" / "result.json").read_bytes() == before


def test_differences_are_named_by_place():
    before = {"a": {"x-y": [1, 2.0, None]}, "date": "then", "gone": 1, "list": [1], "zero": 0.0}
    after = {"a": {"x-y": [1, 2.5, 3.0]}, "date": "now", "new": 2, "list": [1, 2], "zero": -0.0}
    found = {each.place: (each.before, each.after, each.relative) for each in
             differences(before, after)}  # fmt: skip
    assert found == {
        'a["x-y"][1]': (2.0, 2.5, 0.2),
        'a["x-y"][2]': (None, 3.0, None),
        "gone": (1, None, None),
        "list": ([1], [1, 2], None),
        "new": (None, 2, None),
    }
