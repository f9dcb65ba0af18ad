"""Targets and inputs of fuzzing, for the tests and for tools/fuzz.py.

A target takes any bytes and returns, or raises the ValueError of one line that a user would see;
anything else is a fault.  Inputs are made from good documents: JSON is changed as a tree, so that
most of it still parses and the mistake reaches the checks behind the parser; everything else, and
JSON one time in four, is changed as bytes.
"""

import copy
import json
import random
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planting.result_files import NEIGHBOURS, document
from planting.runs import planted_run, write_files

import gainlens

ODD: tuple[Any, ...] = (
    None, True, 0, -1, 2, 10**30, 10**400, 0.5, 1e-300, 1e308, float("nan"), float("inf"), "", "1",
    "\x00", "\ud800", "../../x", "\x1b[2J\n", "é" * 300, [], [[]], {}, {"": None}, [1, "a"],
)  # fmt: skip
"""Values that a reader did not expect."""


@dataclass(frozen=True)
class Target:
    """One reader and good inputs of it."""

    feed: Callable[[bytes], object]
    seeds: tuple[bytes, ...]


def answer(target: Target, data: bytes) -> str | None:
    """Return the refusal of an input, None if it was taken; fail on what is not one line."""
    text, ours = None, True
    try:
        target.feed(data)
    except ValueError as refusal:
        text, ours = f"{type(refusal).__name__}: {refusal}", _is_ours(refusal)
    if text is None:
        return None
    assert ours, f"a library's own words: {text}"
    assert "\n" not in text, f"more than one line: {text!r}"
    return text


def _is_ours(refusal: ValueError) -> bool:
    """Return True if a raise statement of gainlens made it, and not json, pydantic or int()."""
    trace = traceback.extract_tb(refusal.__traceback__)[-1]
    written_here = Path(trace.filename).is_relative_to(Path(gainlens.__file__).parent)
    return written_here and (trace.line or "").startswith("raise ")


def targets(folder: Path) -> dict[str, Target]:
    """Return every reader of foreign files and strings; they write their input into `folder`."""
    return {
        "rescore": _rescore(folder),
        "run": _run(folder),
        "tokens": _tokens(folder),
        "prompts-text": _prompts(folder, "prompts.txt", (b"one\ntwo words\n", "é\n".encode())),
        "prompts-jsonl": _prompts(
            folder, "prompts.jsonl", (b'{"text": "one", "id": "a"}\n"two"\n{"text": "three"}\n',)
        ),
        "ablation": _ablation(),
        "config": _config(folder),
        "index": _index(folder),
        "training": _training(folder),
        "flags": _flags(),
    }


def _written(path: Path, read: Callable[[], object]) -> Callable[[bytes], object]:
    def feed(data: bytes) -> object:
        path.write_bytes(data)
        return read()

    return feed


def _rescore(folder: Path) -> Target:
    from gainlens.notebook.across_files import origins, side_by_side
    from gainlens.notebook.rescore_tables import origin_table, side_by_side_table, tables
    from gainlens.notebook.rescoring import rescore, to_json

    path = folder / "foreign.json"

    def read() -> str:
        score = rescore(path)
        for table in tables(score):
            assert all(text.isprintable() for row in table.rows for text in row)
        side_by_side_table(side_by_side([score, score]))
        origin_table(origins([score]))
        return json.dumps(to_json(score), allow_nan=False)

    files = (document(), *NEIGHBOURS.values())
    return Target(_written(path, read), tuple(json.dumps(file).encode() for file in files))


def _run(folder: Path) -> Target:
    from gainlens.results.reading import read_run
    from gainlens.results.run_folder import RESULT

    run = planted_run()
    place = folder / "run"
    write_files(place, run)
    whole = (place / RESULT).read_bytes()
    return Target(_written(place / RESULT, lambda: read_run(place)), (whole,))


def _tokens(folder: Path) -> Target:
    """Return the reader of one table of a run."""
    from gainlens.results.parquet import write_heads
    from gainlens.results.parquet_reading import TableFile

    path = folder / "tokens.parquet"
    run = planted_run(prompts=4)
    sinks = [(report, run.captures[report.checkpoint.name].sink) for report in run.reports]
    write_heads(path, sinks)
    return Target(_written(path, lambda: TableFile(path)), (path.read_bytes(),))


def _prompts(folder: Path, name: str, seeds: tuple[bytes, ...]) -> Target:
    from gainlens.prompts.texts import load_prompts

    path = folder / name
    return Target(_written(path, lambda: load_prompts(str(path)).sha256), seeds)


def _ablation() -> Target:
    from gainlens.core.spec import parse_ablation

    seeds = (b"blocks.-1.hook_mlp_out=zero", b"blocks.0.attn.hook_z=mean", b"x=resample=")
    return Target(lambda data: parse_ablation(data.decode("utf-8", "surrogateescape")), seeds)


def _config(folder: Path) -> Target:
    """Return the readers of config.json: checkpoints, lm_head and RoPE."""
    from transformers import LlamaConfig

    from gainlens.models.hub import read_config
    from gainlens.weights.rope import rope_report
    from gainlens.weights.unembed_file import read_final_norm

    place = folder / "checkpoint"
    place.mkdir()
    (place / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")

    def read() -> None:
        config = read_config(str(place), None, False)
        rope_report(None, config)
        read_final_norm(place)

    rope = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64}  # fmt: skip
    seeds = []
    for parameters in ({"rope_type": "default", "rope_theta": 1e4}, rope):
        config = LlamaConfig(
            hidden_size=32, num_attention_heads=4, num_hidden_layers=2, rope_parameters=parameters
        )
        fields = config.to_dict() | {"architectures": ["LlamaForCausalLM"]}
        seeds.append(json.dumps(fields).encode())
    return Target(_written(place / "config.json", read), tuple(seeds))


def _index(folder: Path) -> Target:
    """Return the reader of the index of shards, which names files."""
    import torch
    from safetensors.torch import save_file

    from gainlens.models.tensors import INDEX
    from gainlens.weights.unembed_file import read_unembedding

    place = folder / "sharded"
    place.mkdir()
    (place / "config.json").write_text("{}")
    save_file({"lm_head.weight": torch.ones(3, 2)}, place / "a.safetensors")
    good = {"weight_map": {"lm_head.weight": "a.safetensors", "model.norm.weight": "b.safetensors"}}
    read = _written(place / INDEX, lambda: read_unembedding(place))
    return Target(read, (json.dumps(good).encode(),))


def _training(folder: Path) -> Target:
    from gainlens.models.loading import TRAINING_FILE, _read_training

    place = folder / "trained"
    place.mkdir()
    good = json.dumps({"compared": {"data": "abc", "steps": 10, "seed": 0}, "loss": 2.5}).encode()
    return Target(_written(place / TRAINING_FILE, lambda: _read_training(str(place))), (good,))


def _flags() -> Target:
    from gainlens.cli.flags import _estimand, key_of

    def feed(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        key = key_of(text, ["model", "a"])
        assert key not in ("", ".", "..")
        assert Path(key).name == key
        _estimand(text)

    seeds = (b"ordinary/geomean", b"all/median/shapley", b"meta-llama/Llama-3.1-8B", b"../../etc")
    return Target(feed, seeds)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return another input: changed as a tree if it is JSON, else, and at times, as bytes."""
    if rng.random() < 0.75:
        try:
            tree = json.loads(data)
        except (ValueError, RecursionError):
            return _mutated_bytes(data, rng)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            tree = _mutated_tree(tree, rng)
        return json.dumps(tree).encode()
    return _mutated_bytes(data, rng)


def _mutated_tree(tree: Any, rng: random.Random) -> Any:
    """Replace, remove, double or wrap one node, at a depth drawn on the way down."""
    if isinstance(tree, dict | list) and tree and rng.random() < 0.8:
        keys = list(tree) if isinstance(tree, dict) else range(len(tree))
        key = rng.choice(keys)
        if rng.random() < 0.1:
            del tree[key]
        elif rng.random() < 0.05 and isinstance(tree, list):
            tree.append(tree[key])
        elif rng.random() < 0.05 and isinstance(tree, dict):
            tree[str(rng.choice(ODD))] = tree[key]
        else:
            tree[key] = _mutated_tree(tree[key], rng)
        return tree
    if isinstance(tree, int | float) and rng.random() < 0.5:
        return rng.choice((-tree, tree + 1, tree * 2, str(tree), [tree]))
    if rng.random() < 0.03:
        return json.loads("[" * 400 + "]" * 400)
    return copy.deepcopy(rng.choice(ODD))  # what is changed further must not be shared


def _mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, insert or move a few bytes."""
    found = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 2, 4, 8))):
        at = rng.randrange(len(found) + 1)
        what = rng.random()
        if what < 0.3 and at < len(found):
            found[at] ^= 1 << rng.randrange(8)
        elif what < 0.5:
            found[at:at] = rng.choice((b"\0", b"\xff\xfe", b"\n", b'"', b"{", b"[", b"9" * 5000))
        elif what < 0.7:
            del found[at : at + rng.choice((1, 8, 64))]
        elif what < 0.9:
            found[at:at] = found[at : at + rng.randrange(1, 32)]
        else:
            del found[at:]
        found = found or bytearray(b" ")
    return bytes(found)
