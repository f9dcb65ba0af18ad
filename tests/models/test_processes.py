"""Prompts over processes: the same numbers as one process gives, over gloo."""

import json
import os
import socket
import subprocess
import sys

import pytest
from planting import comparing_elsewhere as elsewhere
from planting.planted_blocks import TEXTS, planted_checkpoint

from gainlens.cli.compare import compare_command, run
from gainlens.models import processes as world
from gainlens.models.processes import ALONE, World, decided, gathered, joined, share, started
from gainlens.runs.rerun import differences


def test_alone_everything_is_ones_own():
    assert started() == world.world() == ALONE
    with joined() as found:
        assert found is ALONE
    assert share([1, 2, 3]) == [1, 2, 3]
    assert gathered({1: "a"}) == {1: "a"}
    assert decided("mine") == "mine"


def test_shares_are_disjoint_and_together_all(monkeypatch):
    items = list(range(11))
    parts = []
    for rank in range(3):
        monkeypatch.setattr(world, "_current", World(rank, 3, rank))
        parts.append(share(items))
    assert sorted(item for part in parts for item in part) == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_launcher_is_believed(monkeypatch):
    for name, value in (("RANK", "3"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert started() == World(3, 4, 1)
    assert not started().first


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    short = planted_checkpoint(folder / "short", 1.25)
    long = planted_checkpoint(folder / "long", 0.6, theta=5e5, context=256)
    prompts = folder / "prompts.txt"
    prompts.write_text("\n".join(TEXTS), encoding="utf-8")
    return [
        "--short", str(short.folder), "--long", str(long.folder), "--prompts", str(prompts),
        "--sweep", "1", "--sweep-how", "zero", "--sweep-how", "mean", "--theta", "1e6",
        "--ablate", "blocks.0.hook_mlp_out=resample", "--controls", "--backend", "native",
    ]  # fmt: skip


def _free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def _launch(flags: list[str], size: int) -> list[subprocess.Popen[str]]:
    """Start processes as a launcher does."""
    together = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port()}
    return [
        subprocess.Popen(
            [sys.executable, elsewhere.__file__, "gain_curve", *flags],
            env=os.environ | together | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]


@pytest.mark.slow
def test_two_processes_write_what_one_writes(flags, one_figure, tmp_path):
    assert run(compare_command, [*flags, "--out", str(tmp_path / "one"), "--quiet"]) == 0
    processes = _launch([*flags, "--out", str(tmp_path / "two"), "--json"], 2)
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    one, two = (
        json.loads((tmp_path / n / "result.json").read_text("utf-8")) for n in ("one", "two")
    )
    found = [each for each in differences(one, two) if each.place != "command"]
    assert not [each for each in found if each.relative is None], found
    assert all(each.relative <= 1e-6 for each in found), found
    assert json.loads(outputs[0][0]) == two
    assert outputs[1] == ("", "")


@pytest.mark.slow
def test_a_mistake_ends_every_process(flags, tmp_path):
    processes = _launch([*flags, "--ablate", "blocks.7.hook_mlp_out=zero", "--quiet"], 2)
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [2, 2]
    assert "names a block that this model does not have" in outputs[0][1]
    assert outputs[1][1].startswith("error in process 1: ")
