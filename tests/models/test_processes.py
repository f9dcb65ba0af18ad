"""Prompts over processes: the same numbers as one process gives, over gloo."""

import json
import socket

import pytest
from planting.forking import Server
from planting.planted_blocks import TEXTS, planted_checkpoint

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


def ranks(size: int) -> list[dict[str, str]]:
    """Return what a launcher puts into each process's environment."""
    together = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port()}
    return [together | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]


@pytest.fixture(scope="module")
def server():
    serving = Server()
    yield serving
    serving.close()


@pytest.mark.slow
def test_two_processes_write_what_one_writes(flags, server, tmp_path):
    assert server.run([*flags, "--out", str(tmp_path / "one"), "--quiet"])[0] == 0
    command = [*flags, "--out", str(tmp_path / "two"), "--json"]
    statuses, outputs = server.together(command, ranks(2), tmp_path)
    assert statuses == [0, 0], outputs
    one, two = (
        json.loads((tmp_path / n / "result.json").read_text("utf-8")) for n in ("one", "two")
    )
    found = [each for each in differences(one, two) if each.place != "command"]
    assert not [each for each in found if each.relative is None], found
    assert all(each.relative <= 1e-6 for each in found), found
    assert json.loads(outputs[0][0]) == two
    assert outputs[1] == ("", "")


@pytest.mark.slow
def test_a_mistake_ends_every_process(flags, server, tmp_path):
    mistake = [*flags, "--ablate", "blocks.7.hook_mlp_out=zero", "--quiet", "--out", str(tmp_path)]
    statuses, outputs = server.together(mistake, ranks(2), tmp_path)
    assert statuses == [2, 2]
    assert "names a block that this model does not have" in outputs[0][1]
    assert outputs[1][1].startswith("error in process 1: ")
