"""Test that a run folder holds the old run or the new one, whenever its writer dies."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from planting.comparing import same
from planting.runs import planted_run, write_files

from gainlens.results import reading
from gainlens.results import run_folder as staging
from gainlens.results.parquet import HEADS, TOKENS
from gainlens.results.parquet_reading import TableFile
from gainlens.results.reading import read_run
from gainlens.results.run_folder import NEW, READY, RESULT, current, publish, run_folder

DIE_AT_EVERY_STEP = """
import os, shutil, sys
from pathlib import Path
from gainlens.results.run_folder import publish, run_folder

old, new, trials = (Path(argument) for argument in sys.argv[1:])
STEPS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "open", "shutil.copyfile"}

def replace_run(folder, figures):
    with run_folder(folder):
        publish(folder, figures, lambda run, drawn: (
            shutil.copytree(new, run, dirs_exist_ok=True),
            (drawn / "headline.png").write_text("new"),
        ))

def die_at(step):
    seen = 0
    def count(event, arguments):
        nonlocal seen
        if event in STEPS:
            if seen == step:
                os._exit(9)
            seen += 1
    sys.addaudithook(count)

for step in range(1000):
    folder = trials / f"{step:03}"
    shutil.copytree(old, folder / "run")
    child = os.fork()
    if not child:
        die_at(step)
        replace_run(folder / "run", folder / "figures")
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 9:
        sys.exit(status)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two runs of the same shape and other numbers, and a trial for every step of replacing one."""
    base = tmp_path_factory.mktemp("staging")
    old = write_files(base / "old", planted_run(prompts=20, models=2))
    new = write_files(base / "new", planted_run(prompts=20, models=2, seed=100))
    command = [sys.executable, "-c", DIE_AT_EVERY_STEP, str(old), str(new), str(base / "trials")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    trials = sorted((base / "trials").iterdir())
    runs = {"old run": read_run(old), "new run": read_run(new)}
    return {"old": old, "new": new, "trials": trials, **runs}


def holds(folder: Path, folders) -> str:
    """Which of the two runs a folder holds, all of it."""
    run = read_run(folder)
    for name in ("old", "new"):
        expected = folders[f"{name} run"]
        if np.array_equal(run.reports[0].last_block, expected.reports[0].last_block):
            same(run, expected)
            return name
    raise AssertionError("neither")


@pytest.fixture(scope="module")
def found(folders):
    """Which run each trial's folder holds after its writer's death."""
    return [holds(trial / "run", folders) for trial in folders["trials"]]


@pytest.mark.fault(
    "a death at any step of writing a run", "the run before or the run after stands, whole"
)
def test_a_death_at_any_step_leaves_the_run_before_or_the_run_after(folders, found):
    assert len(found) > 20
    assert found == sorted(found, reverse=True)  # all old, then all new: there is one moment
    assert set(found) == {"old", "new"}
    for trial in folders["trials"]:
        json.loads((trial / "run" / RESULT).read_text("utf-8"))


def test_the_next_writer_finishes_or_forgets_what_was_begun(folders, found, tmp_path):
    for before, trial in zip(found, folders["trials"], strict=True):
        copied = tmp_path / trial.name
        shutil.copytree(trial, copied)
        with run_folder(copied / "run"):
            pass
        names = {path.name for path in (copied / "run").iterdir()}
        assert names == {RESULT, TOKENS, HEADS}
        for name in names:
            assert (copied / "run" / name).read_bytes() == (folders[before] / name).read_bytes()


def test_a_moved_folder_finds_its_waiting_figures(tmp_path):
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(staging, "settle", lambda folder: [])
        publish(folder, folder / "figures", draw)
    assert not (folder / RESULT).exists()
    assert current(folder, RESULT).read_text() == "{}"
    folder.rename(tmp_path / "moved")
    with run_folder(tmp_path / "moved"):
        pass
    assert (tmp_path / "moved" / "figures" / "headline.png").read_text() == "drawn"
    assert not (tmp_path / "moved" / READY).exists()


def draw(run: Path, figures: Path) -> None:
    (run / RESULT).write_text("{}")
    (run / "inner").mkdir()
    (run / "inner" / "table.csv").write_text("a,b")
    (figures / "headline.png").write_text("drawn")


def test_everything_comes_to_its_place_and_is_named(tmp_path):
    folder, figures = tmp_path / "run", tmp_path / "elsewhere" / "figures"
    placed = publish(folder, figures, draw)
    assert placed == [folder / "inner" / "table.csv", folder / RESULT, figures / "headline.png"]
    assert all(path.is_file() for path in placed)
    assert {path.name for path in folder.iterdir()} == {"inner", RESULT}
    assert current(folder, RESULT) == folder / RESULT


def test_figures_on_another_file_system_are_copied(tmp_path, monkeypatch):
    real = Path.replace

    def replace(self, target):
        if self.parent.name == "figures" and READY in self.parts:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    publish(tmp_path / "run", tmp_path / "figures", draw)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"headline.png"}
    assert (tmp_path / "figures" / "headline.png").read_text() == "drawn"
    assert not (tmp_path / "run" / READY).exists()


@pytest.mark.parametrize("step", ["written", "flushed"])
@pytest.mark.fault("a full disk while a run is written", "one sentence; the old run stays")
def test_a_full_disk_is_one_sentence_and_the_old_run_stays(tmp_path, monkeypatch, step):
    publish(tmp_path, tmp_path / "figures", draw)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "tokens.parquet")

    if step == "flushed":
        monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match="No space left") as caught:
        publish(tmp_path, tmp_path / "figures", full if step == "written" else draw)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.fault("figures that have no place", "refused before the run changes")
def test_figures_that_have_no_place_are_refused_before_the_run_changes(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write .*file"):
        publish(tmp_path / "run", tmp_path / "file" / "figures", draw)
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.fault(
    "a run is replaced while it is read",
    "it is read again",
)
@pytest.mark.parametrize("overtaken", [TOKENS, HEADS])
def test_a_reader_that_is_overtaken_reads_again(folders, tmp_path, monkeypatch, overtaken):
    """The run is replaced after result.json was read and before a table is."""
    shutil.copytree(folders["old"], tmp_path / "run")
    real = TableFile

    def table_file(path):
        if path.name == overtaken:
            monkeypatch.setattr(reading, "TableFile", real)
            publish(tmp_path / "run", tmp_path / "figures", copy)
        return real(path)

    def copy(run, figures):
        shutil.copytree(folders["new"], run, dirs_exist_ok=True)

    monkeypatch.setattr(reading, "TableFile", table_file)
    assert holds(tmp_path / "run", folders) == "new"


@pytest.mark.fault(
    "result.json and tokens.parquet of two runs in one folder",
    "refused by read_run: they are not of one run",
)
@pytest.mark.parametrize("name", [TOKENS, RESULT])
def test_files_of_two_runs_of_one_shape_are_refused(folders, tmp_path, name):
    shutil.copytree(folders["old"], tmp_path / "run")
    shutil.copyfile(folders["new"] / name, tmp_path / "run" / name)
    with pytest.raises(ValueError, match=r"no whole run: tokens.parquet gives alpha other gains"):
        read_run(tmp_path / "run")
    assert not (tmp_path / "run" / NEW).exists()
