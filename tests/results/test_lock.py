"""Test that two writers never share a run folder, and that a dead writer never keeps it."""

import os
import signal
import subprocess
import sys

import pytest

from gainlens.results.lock import LOCK, locked

fault = pytest.mark.fault
START = """
import os, sys, time
from pathlib import Path
from gainlens.results.lock import locked
folder = Path(sys.argv[1])
"""
HOLD = (
    START
    + """
with locked(folder):
    print("held", flush=True)
    time.sleep(60)
"""
)
FORK = (
    START
    + """
with locked(folder):
    child = os.fork()
    if child:
        os.waitpid(child, 0)  # the child leaves the context first
        print("left", flush=True)
        time.sleep(60)
"""
)
ADD_ONE = (
    START
    + """
counter, done = Path(sys.argv[2]), 0
while done < 20:
    try:
        with locked(folder):
            count = int(counter.read_text())
            time.sleep(0.0005)
            counter.write_text(str(count + 1))
            done += 1
    except ValueError:
        time.sleep(0.0002)
"""
)


@pytest.fixture
def start():
    processes = []

    def run(code: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.communicate()


@fault("two runs into one folder", "the second is refused: who holds it, and since when")
def test_the_second_writer_is_told_who_holds_the_folder(start, tmp_path):
    holder = start(HOLD, tmp_path / "run")
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match=rf"process {holder.pid} ") as caught:
        locked(tmp_path / "run").__enter__()
    assert "\n" not in str(caught.value)
    assert (tmp_path / "run" / LOCK).exists()  # the refused writer took nothing away


@fault("the run that holds a folder is killed", "the next run has the folder at once")
def test_the_lock_ends_with_a_killed_process(start, tmp_path):
    holder = start(HOLD, tmp_path / "run")
    assert holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(tmp_path / "run"):
        pass
    assert not (tmp_path / "run" / LOCK).exists()


def test_a_forked_child_that_leaves_keeps_the_parents_lock(start, tmp_path):
    parent = start(FORK, tmp_path)
    assert parent.stdout.readline() == "left\n"
    with pytest.raises(ValueError, match=f"process {parent.pid} "):
        locked(tmp_path).__enter__()


def test_processes_that_make_and_remove_the_lock_never_overlap(start, tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    for process in [start(ADD_ONE, tmp_path / "run", counter) for _ in range(3)]:
        assert process.wait(timeout=60) == 0
    assert int(counter.read_text()) == 3 * 20


def test_only_what_was_there_or_was_written_stays(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "a" / "b"):
        with locked(folder):
            assert (folder / LOCK).exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]
    with locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "result.json").write_text("{}")
    assert {path.name for path in tmp_path.rglob("*")} == {"empty", "a", "b", "result.json"}


@fault("a lock file that is a link to elsewhere", "what it points to is not written")
def test_a_lock_file_is_never_written_through_a_link(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / LOCK).symlink_to(tmp_path / "precious")
    with pytest.raises(ValueError, match="cannot write"):
        locked(tmp_path).__enter__()
    assert (tmp_path / "precious").read_text() == "precious"


@fault("a file system without locks", "refused: two runs could mix in it")
def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    import fcntl

    def no_locks(*_):
        raise OSError(37, os.strerror(37))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(ValueError, match="No locks"):
        locked(tmp_path).__enter__()
