"""Two writers never share a run folder, and a dead one never keeps it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gainlens.results.lock import LOCK, locked

HOLD = """
import sys, time
from pathlib import Path
from gainlens.results.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
FORK = """
import os, sys, time
from pathlib import Path
from gainlens.results.lock import locked
with locked(Path(sys.argv[1])):
    child = os.fork()
    if not child:  # by now it has let go
        os.write(1, f"{os.getpid()}\\n".encode())
    time.sleep(0 if sys.argv[2] == "leaves" and not child else 60)
"""
ADD_ONE = """
import sys, time
from pathlib import Path
from gainlens.results.lock import locked
folder, counter = Path(sys.argv[1]), Path(sys.argv[2])
done = 0
while done < int(sys.argv[3]):
    try:
        with locked(folder):
            count = int(counter.read_text())
            time.sleep(0.0005)
            counter.write_text(str(count + 1))
            done += 1
    except ValueError:
        time.sleep(0.0002)
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def holder(tmp_path):
    process = start(HOLD, tmp_path / "run")
    assert line(process) == "held"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.fault(
    "two runs into one folder", "the second is refused: who holds it, and since when"
)
def test_the_second_is_told_who_holds_the_folder_and_since_when(holder, tmp_path):
    pattern = rf"run is being written by process {holder.pid} on \S+ since 20\d\d-.* UTC: wait"
    with pytest.raises(ValueError, match=pattern) as caught, locked(tmp_path / "run"):
        pass
    assert "\n" not in str(caught.value)
    assert (tmp_path / "run" / LOCK).exists()  # the refused one took nothing away


def test_one_process_cannot_hold_it_twice(tmp_path):
    with locked(tmp_path), pytest.raises(ValueError, match=str(os.getpid())), locked(tmp_path):
        pass


@pytest.mark.fault(
    "the run that holds a folder is killed",
    "the next run has the folder at once",
)
@pytest.mark.fault("a lock whose holder was killed", "it is free again")
def test_the_lock_ends_with_a_killed_process(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "run" / LOCK).exists()
    with locked(tmp_path / "run"):
        pass
    assert not (tmp_path / "run" / LOCK).exists()


def test_a_forked_worker_does_not_hold_it_beyond_its_parent(tmp_path):
    process = start(FORK, tmp_path, "stays")
    child = int(line(process))
    try:
        process.send_signal(signal.SIGKILL)
        process.wait()
        os.kill(child, 0)  # alive
        with locked(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        process.communicate()


def test_a_forked_worker_that_leaves_does_not_let_it_go(tmp_path):
    process = start(FORK, tmp_path, "leaves")
    child = int(line(process))
    try:
        while Path(f"/proc/{child}/stat").read_text().split()[2] != "Z":
            time.sleep(0.01)
        with pytest.raises(ValueError, match=f"process {process.pid} "), locked(tmp_path):
            pass
    finally:
        process.kill()
        process.communicate()


def test_nothing_is_left_behind(tmp_path):
    with locked(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / LOCK).exists()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError, match="mine"), locked(tmp_path / "a" / "b"):
        raise RuntimeError("mine")
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_or_was_written_stays(tmp_path):
    (tmp_path / "empty").mkdir()
    with locked(tmp_path / "empty"):
        pass
    with locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "result.json").write_text("{}")
    assert {path.name for path in tmp_path.rglob("*")} == {"empty", "a", "b", "result.json"}


@pytest.mark.fault("a lock file that is a link to elsewhere", "what it points to is not written")
def test_a_lock_file_is_never_written_through_a_link(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / LOCK).symlink_to(tmp_path / "precious")
    with pytest.raises(ValueError, match="cannot write into"), locked(tmp_path):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("place", ["/proc/nowhere/run", "/dev/null/run"])
@pytest.mark.fault("a place in which no folder can be made", "refused in one sentence")
def test_a_place_that_takes_no_folder_is_one_sentence(place):
    with (
        pytest.raises(ValueError, match=r"cannot write into .*; give --out another") as caught,
        locked(Path(place)),
    ):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.fault(
    "a file system without locks",
    "refused: two runs could mix in it",
)
@pytest.mark.fault("a file system without locks", "refused")
def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    import fcntl

    def no_locks(*_):
        raise OSError(37, os.strerror(37))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(ValueError, match=r"cannot be locked \(No locks"), locked(tmp_path):
        pass


def test_many_processes_that_make_and_remove_the_lock_never_overlap(tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [start(ADD_ONE, tmp_path / "run", counter, 40) for _ in range(4)]
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert int(counter.read_text()) == 4 * 40
    assert not list((tmp_path / "run").glob("*"))
