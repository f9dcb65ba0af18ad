"""What training reads, in one folder: token streams, tokenizer, prompts, their record."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from training import corpus, tokens

NOTEBOOK_SENTENCE = "The quick brown fox jumps over the lazy dog."
PROMPTS = Path(__file__).parents[2] / "src/gainlens/data/prompts_mixed.jsonl"
PROMPT_TOKENS = 512  # longer prompts are cut; a design may cut them shorter
FILE_TOKENS = tuple(2**power for power in range(8, 14))


@dataclass(frozen=True)
class Data:
    """What `write` left in a folder."""

    train: np.ndarray
    held_out: np.ndarray
    prompts: tuple[list[int], ...]
    """token ids of the mixed prompts, then of the notebook's sentence, BOS first"""
    record: dict[str, Any]
    """corpus hash, sizes, packages"""


def write(requirements: Path, wheels: Path, out: Path) -> None:
    """Turn wheels into out/{tokenizer/, train.xz, held_out.xz, prompts.json, corpus.json}."""
    built = corpus.build(requirements, wheels)
    tokenizer = tokens.train_tokenizer(tokens.sample(built.train, tokens.SAMPLE_BYTES))
    tokens.save_tokenizer(tokenizer, out / "tokenizer")
    (out / "prompts.json").write_text(json.dumps(encode_prompts(tokenizer)))
    record = describe(built, requirements)
    for name, packages in (("held_out", built.held_out), ("train", built.train)):
        stream, file_tokens = tokens.encode(tokenizer, packages)
        if name == "train":
            record["positions_in_longer_files"] = longer_share(file_tokens)
        tokens.write_stream(out / f"{name}.xz", stream)
        record[f"{name}_tokens"] = len(stream)
        record[f"{name}_tokens_sha256"] = hashlib.sha256(stream.tobytes()).hexdigest()
    (out / "corpus.json").write_text(json.dumps(record, indent=2) + "\n")


def longer_share(file_tokens: np.ndarray) -> dict[str, float]:
    """Return the share of tokens whose file is longer than each of FILE_TOKENS."""
    total = int(file_tokens.sum())
    return {
        str(n): round(float(file_tokens[file_tokens > n].sum()) / total, 4) for n in FILE_TOKENS
    }


def encode_prompts(tokenizer: Tokenizer) -> list[list[int]]:
    """Encode the mixed prompts, then the notebook's sentence."""
    lines = PROMPTS.read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines] + [NOTEBOOK_SENTENCE]
    return [tokenizer.encode(text).ids[:PROMPT_TOKENS] for text in texts]


def describe(built: corpus.Corpus, requirements: Path) -> dict[str, Any]:
    """Record what the corpus is made of."""
    listed = corpus.read_requirements(requirements)
    return {
        "requirements": requirements.name,
        "sha256": built.sha256,
        "train_bytes": sum(len(t.encode()) for files in built.train for t in files),
        "held_out_bytes": sum(len(t.encode()) for files in built.held_out for t in files),
        "files": sum(len(files) for files in (*built.train, *built.held_out)),
        "dropped_files": built.dropped,
        "train_packages": [f"{r.name}=={r.version}" for r in listed if not r.held_out],
        "held_out_packages": [f"{r.name}=={r.version}" for r in listed if r.held_out],
        "prompts_sha256": hashlib.sha256(PROMPTS.read_bytes()).hexdigest(),
    }


def read(folder: Path) -> Data:
    """Read what `write` left."""
    return Data(
        train=tokens.read_stream(folder / "train.xz"),
        held_out=tokens.read_stream(folder / "held_out.xz"),
        prompts=tuple(json.loads((folder / "prompts.json").read_text())),
        record=json.loads((folder / "corpus.json").read_text()),
    )
