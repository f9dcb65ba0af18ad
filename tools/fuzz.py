"""Fuzz all that reads foreign bytes: every input is taken, or refused in one line.

    pip install atheris==3.0.0                        # Linux, Python 3.11 to 3.13
    nice -n 15 python tools/fuzz.py                   # 120,000 inputs, about 10 minutes on one core
    nice -n 15 python tools/fuzz.py rescore config    # some readers
    python tools/fuzz.py --short rescore              # a tenth of the inputs, without atheris

atheris drives libFuzzer by the coverage of the Python code under test.  Readers, first inputs and
mutations are those of tests/planting/fuzzing.py.  An input that breaks a reader is left as crash-*
in the current folder; the short mode prints it.
"""

import collections
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNS = {
    "rescore": 30_000,
    "run": 5_000,
    "tokens": 5_000,
    "prompts-text": 15_000,
    "prompts-jsonl": 20_000,
    "ablation": 10_000,
    "config": 5_000,
    "index": 10_000,
    "training": 10_000,
    "flags": 10_000,
}
"""Inputs per reader; fewer if one takes milliseconds."""


def fuzz(name: str, tally: Path) -> None:
    """Feed one reader in this process, which libFuzzer ends."""
    import atheris

    sys.path.insert(0, str(ROOT / "tests"))
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    with atheris.instrument_imports(include=["gainlens"]):
        from planting import fuzzing

        target = fuzzing.targets(folder)[name]  # here, because targets import what they need
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(seed)
    said: collections.Counter[bool] = collections.Counter()

    def feed(data: bytes) -> None:
        said[fuzzing.answer(target, data) is None] += 1
        if not sum(said.values()) % 500:
            tally.write_text(json.dumps({"taken": said[True], "refused": said[False]}))

    def mutate(data: bytes, limit: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.25:
            return atheris.Mutate(data, limit)
        # half of them a step from a good input: libFuzzer's own grow ever more broken
        fresh = not data or rng.random() < 0.5
        return fuzzing.mutated(rng.choice(target.seeds) if fresh else data, rng)[:limit]

    # len_control=0: libFuzzer would start with inputs of a few bytes, and cut the seeds to that
    flags = ["-len_control=0", "-max_len=500000", "-seed=1", "-timeout=60", f"-runs={RUNS[name]}"]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], feed, custom_mutator=mutate)
    atheris.Fuzz()


def count(name: str) -> dict[str, int]:
    """Fuzz one reader in its own process; return its inputs as libFuzzer counted them."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        tally = Path(scratch) / "tally.json"
        offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TMPDIR": scratch}
        done = subprocess.run(
            [sys.executable, __file__, "--one", name, str(tally)],
            env=os.environ | offline, capture_output=True, text=True, errors="replace",
        )  # fmt: skip
        runs = re.findall(r"Done (\d+) runs", done.stderr)
        if done.returncode or not runs:
            raise SystemExit(f"{name} broke:\n{done.stdout[-3000:]}{done.stderr[-6000:]}")
        return {"inputs": int(runs[0]), **json.loads(tally.read_text())}


def count_short(name: str) -> dict[str, int]:
    """Feed a tenth of a reader's inputs in this process, from mutations alone."""
    sys.path.insert(0, str(ROOT / "tests"))
    from planting import fuzzing

    said: collections.Counter[bool] = collections.Counter()
    rng = random.Random(1)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        target = fuzzing.targets(Path(folder))[name]
        for _ in range(RUNS[name] // 10):
            data = rng.choice(target.seeds)
            for _ in range(rng.choice((1, 1, 2, 5))):
                data = fuzzing.mutated(data, rng)
            try:
                said[fuzzing.answer(target, data) is None] += 1
            except BaseException:
                print(f"{name} broke on {data[:2000]!r}", flush=True)
                raise
    return {"inputs": sum(said.values()), "taken": said[True], "refused": said[False]}


def main(arguments: list[str]) -> None:
    """Fuzz the readers named, or all, and print how many inputs each took and refused."""
    if arguments[:1] == ["--one"]:
        fuzz(arguments[1], Path(arguments[2]))
        return
    short = arguments[:1] == ["--short"]
    for name in arguments[short:] or RUNS:
        print(name, count_short(name) if short else count(name), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
