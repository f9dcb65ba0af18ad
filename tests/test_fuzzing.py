"""Feed readers of foreign bytes a few thousand made-up inputs; tools/fuzz.py runs many more."""

import random
from collections import Counter

import pytest
from planting.fuzzing import Target, answer, mutated, targets

NAMES = (
    "rescore", "run", "tokens", "prompts-text", "prompts-jsonl", "ablation", "config", "index",
    "training", "flags",
)  # fmt: skip
SLOW = {"run": 100, "config": 100, "tokens": 100}


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    return targets(tmp_path_factory.mktemp("fuzz"))


def test_every_reader_is_there(readers):
    assert tuple(readers) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_any_input_is_taken_or_refused_in_one_line(readers, name):
    target = readers[name]
    rng = random.Random(0)
    said = Counter(answer(target, seed) for seed in target.seeds)
    for _ in range(SLOW.get(name, 400)):
        data = rng.choice(target.seeds)
        for _ in range(rng.choice((1, 1, 2, 5))):
            data = mutated(data, rng)
        said[answer(target, data)] += 1
    assert said[None], "some inputs are good"
    assert len(said) > 3, "and others are refused for different reasons"


@pytest.mark.parametrize(
    "feed",
    [
        lambda data: {}["missing"],
        lambda data: int("many\nlines") and None,
        lambda data: data.decode("ascii"),
    ],
)
def test_what_is_no_refusal_of_ours_is_a_fault(feed):
    with pytest.raises((AssertionError, KeyError)):
        answer(Target(feed, ()), b"\xff")
