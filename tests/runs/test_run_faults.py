"""Check what the command says and leaves if the disk, the network or another run is in its way."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from planting.planted_blocks import TEXTS, planted_checkpoint
from planting.runs import drawing_only

from gainlens.cli.commands import gainlens_command
from gainlens.cli.compare import compare_command, run
from gainlens.results.lock import LOCK, locked
from gainlens.results.reading import read_run
from gainlens.runs import resume
from gainlens.runs import writing as rendering

fault = pytest.mark.fault


@pytest.fixture(autouse=True, scope="module")
def one_figure():
    """Draw one figure alone: all take three quarters of a small comparison's time."""
    with drawing_only("gain_curve"):
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    base = tmp_path_factory.mktemp("faults")
    planted_checkpoint(base / "short", 1.25)
    planted_checkpoint(base / "long", 0.6, theta=5e5)
    (base / "prompts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    return base


@pytest.fixture(scope="module")
def finished(base):
    out = base / "finished"
    assert run(compare_command, [*flags(base, out), "--quiet"]) == 0
    return out


def flags(base: Path, out: Path, long: str | None = None, seed: int = 0) -> list[str]:
    return [
        *("--short", str(base / "short"), "--long", long or str(base / "long")),
        *("--prompts", str(base / "prompts.txt"), "--out", str(out), "--seed", str(seed)),
        *("--resamples", "200", "--no-interventions", "--backend", "native"),
    ]


def sentence(capsys) -> str:
    """The one line on standard error."""
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("error: ")
    return printed.err


def full(path, *_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


@fault(
    "the disk fills up while a run is written",
    "refused: the file; the old result stays, finished models are kept and taken up",
)
def test_a_full_disk_keeps_the_old_result_and_the_finished_models(
    base, finished, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    names = {path.name for path in out.iterdir()}
    monkeypatch.setattr(rendering, "write_heads", full)
    assert run(compare_command, flags(base, out, seed=1)) == 2
    assert "heads.parquet: No space left on device; make room there" in sentence(capsys)
    assert read_run(out).spec.rule.seed == 0
    assert {path.name for path in out.iterdir()} == {*names, ".partial"}
    monkeypatch.undo()
    assert run(compare_command, flags(base, out, seed=1)) == 0
    assert capsys.readouterr().err.count("resumed: ") == 2
    assert read_run(out).spec.rule.seed == 1
    assert {path.name for path in out.iterdir()} == names


@fault(
    "the disk is full when the first model is done",
    "refused: the file; nothing half-written is left",
)
def test_a_full_disk_at_the_first_model_leaves_nothing(base, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(resume, "TokenTable", full)
    assert run(compare_command, flags(base, tmp_path / "run")) == 2
    assert "tokens.parquet: No space left on device; make room there" in sentence(capsys)
    assert list(tmp_path.iterdir()) == []


@fault("a run folder in a place that takes none", "refused before anything is measured")
@pytest.mark.parametrize("place", ["/proc/run", "/dev/null/run"])
def test_a_place_for_no_folder(base, place, capsys):
    assert run(compare_command, flags(base, Path(place))) == 2
    assert "give --out another folder" in sentence(capsys)


@fault("a read-only file system", "refused before anything is measured")
def test_a_read_only_file_system(base, tmp_path, monkeypatch, capsys):
    real = os.mkdir

    def mkdir(path, *rest, **options):
        if Path(path).name == "run":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        real(path, *rest, **options)

    monkeypatch.setattr(os, "mkdir", mkdir)
    assert run(compare_command, flags(base, tmp_path / "run")) == 2
    error = sentence(capsys)
    assert "Read-only file system" in error
    assert "give --out another folder" in error


@fault("a read-only run folder", "refused before anything is measured")
@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_read_only_folder(base, tmp_path, capsys):
    tmp_path.chmod(0o555)
    try:
        assert run(compare_command, flags(base, tmp_path / "run")) == 2
        assert "cannot be written to: give --out another folder" in sentence(capsys)
    finally:
        tmp_path.chmod(0o755)


@fault(
    "a hub model that is not in the cache, and no network",
    "refused before anything is measured; nothing is left behind",
)
def test_a_lost_network(base, tmp_path, capsys):
    assert run(compare_command, flags(base, tmp_path / "run", long="some-one/some-model")) == 2
    assert "the Hugging Face hub cannot be reached: give a directory" in sentence(capsys)
    assert list(tmp_path.iterdir()) == []


@fault(
    "a second run into one folder", "refused: who holds the folder, on which machine, since when"
)
def test_a_second_run_into_one_folder(base, tmp_path, capsys):
    with locked(tmp_path):
        assert run(compare_command, flags(base, tmp_path)) == 2
        assert f"is being written by process {os.getpid()} on " in sentence(capsys)
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]


@fault("a second command that re-scores into the same folder", "refused likewise")
def test_rescoring_into_a_folder_that_is_held(finished, tmp_path, capsys):
    result = finished / "result.json"
    with locked(tmp_path):
        assert run(compare_command, ["--rescore", str(result), "--out", str(tmp_path)]) == 2
        assert "is being written by process" in sentence(capsys)


@fault("a page drawn again while another run writes the folder", "refused likewise")
def test_reporting_on_a_folder_that_is_held(finished, capsys):
    with locked(finished):
        assert run(gainlens_command, ["report", str(finished)]) == 2
        assert "is being written by process" in sentence(capsys)


def test_a_report_of_no_run_makes_no_folder(tmp_path, capsys):
    assert run(gainlens_command, ["report", str(tmp_path / "nowhere")]) == 2
    assert "is no run folder" in sentence(capsys)
    assert list(tmp_path.iterdir()) == []
