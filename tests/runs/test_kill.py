"""SIGKILL at twenty random moments of a comparison: the old result or the new one, and resumption.

Every step of replacing a run is tried in test_staging.py; here the whole command dies.
"""

import json
import random
import signal
from pathlib import Path

import pytest
from planting.forking import Server
from planting.planted_blocks import TEXTS, planted_checkpoint

from gainlens.results.reading import read_run
from gainlens.runs.resume import PARTIAL

KILLS, KILLS_IN_TURN = 20, 3
"""In all, and of one command before it may end."""


@pytest.fixture(scope="module")
def server():
    serving = Server()
    yield serving
    serving.close()


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """Two comparisons of the same models with different results: by the bootstrap's seed."""
    base = tmp_path_factory.mktemp("kill")
    short = planted_checkpoint(base / "short", 1.25)
    long = planted_checkpoint(base / "long", 0.6, theta=5e5)
    prompts = base / "prompts.txt"
    prompts.write_text("\n".join(TEXTS), encoding="utf-8")
    models = ("--short", short.folder, "--long", long.folder)
    shared = (*models, "--prompts", prompts, "--resamples", "200", "--no-interventions")
    shared += ("--backend", "native", "--quiet")
    return {seed: [*map(str, shared), "--seed", str(seed)] for seed in (1, 2)}


def lasting(folder: Path) -> dict:
    """A result, date and timing aside."""
    document = json.loads((folder / "result.json").read_text("utf-8"))
    for key in ("date", "seconds"):
        del document[key]
    return document


def seed_of(folder: Path, whole: dict[int, dict]) -> int:
    """Which of the two results the folder holds, for who asks gainlens and for who does not."""
    document = lasting(folder)
    (seed,) = (seed for seed, result in whole.items() if result == document)
    read = read_run(folder).spec.rule.seed
    assert read == seed or (folder / ".ready").exists()
    return read


@pytest.mark.fault(
    "SIGKILL at any moment of a comparison",
    "the folder holds the old result or the new one; the next run goes on and ends the same",
)
@pytest.mark.slow
def test_killed_at_twenty_random_moments(server, flags, tmp_path, capsys):
    whole = {}
    for seed, arguments in flags.items():
        assert server.run([*arguments, "--out", str(tmp_path / str(seed))])[0] == 0
        whole[seed] = lasting(tmp_path / str(seed))
    assert whole[1] != whole[2]
    folder = tmp_path / "run"
    status, length = server.run([*flags[2], "--out", str(folder)])
    assert status == 0
    moments = random.Random(0)
    killed = resumed = new = trial = cycle = 0
    while killed < KILLS:  # a run may be over before its moment, the faster the quieter the machine
        cycle += 1
        seed = 1 + cycle % 2
        arguments = [*flags[seed], "--out", str(folder)]
        for _ in range(KILLS_IN_TURN):
            trial += 1
            assert trial <= 3 * KILLS
            status, seconds = server.run(arguments, kill_after=moments.uniform(0, length))
            length = min(length, seconds) if status == 0 else length
            assert status in (0, -signal.SIGKILL)
            killed += status != 0
            resumed += any((folder / PARTIAL).glob("*/sums.json"))
            new += seed_of(folder, whole) == seed
        assert server.run(arguments)[0] == 0
        assert lasting(folder) == whole[seed]
        assert seed_of(folder, whole) == seed
        assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
    with capsys.disabled():
        print(f"\n{killed} of {trial} died, {resumed} left models to take up, {new} the new result")
    assert resumed >= KILLS // 5
