"""Corpus -> byte-level BPE tokenizer, token streams on disk, windows, sequences."""

import json
import lzma
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor

BOS, EOS = "<s>", "</s>"
BOS_ID, EOS_ID = 0, 1
VOCABULARY = 4096
WINDOW = 4096  # tokens predicted per window; every context length divides it
SAMPLE_BYTES = 48_000_000  # text that the merges are learned from
LENGTHS = (128, 512, 1024, 2048, 4096)  # at which held-out loss is measured


def sample(packages: Sequence[Sequence[str]], limit: int) -> Iterator[str]:
    """Every k-th file, so that about `limit` characters come from all packages alike."""
    total = sum(len(text) for files in packages for text in files)
    step = max(1, round(total / limit))
    for files in packages:
        yield from files[::step]


def train_tokenizer(texts: Iterable[str], vocabulary: int = VOCABULARY) -> Tokenizer:
    """Byte-level BPE that prepends exactly one BOS and decodes back to the same UTF-8."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    assert (tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)) == (BOS_ID, EOS_ID)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, BOS_ID)]
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """The two files that `AutoTokenizer` reads; compact JSON, since four copies ship."""
    folder.mkdir(parents=True, exist_ok=True)
    content = json.loads(tokenizer.to_str())
    (folder / "tokenizer.json").write_text(
        json.dumps(content, ensure_ascii=False, separators=(",", ":")), encoding="utf-8"
    )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def encode(tokenizer: Tokenizer, packages: Sequence[Sequence[str]]) -> np.ndarray:
    """One stream [token] uint16 of all packages, an EOS after each.

    Text that spells a special token is encoded as ordinary characters: BOS stands nowhere but where
    the trainer puts it.
    """
    tokenizer.encode_special_tokens = True
    parts: list[np.ndarray] = []
    for files in packages:
        for encoding in tokenizer.encode_batch_fast(list(files), add_special_tokens=False):
            parts.append(np.asarray(encoding.ids, dtype=np.uint16))
        parts.append(np.asarray([EOS_ID], dtype=np.uint16))
    tokenizer.encode_special_tokens = False
    return np.concatenate(parts)


def write_stream(path: Path, stream: np.ndarray) -> None:
    """uint16, little endian, xz: a sixth of the text, small enough to carry to another machine."""
    path.write_bytes(lzma.compress(stream.astype("<u2").tobytes(), preset=2))


def read_stream(path: Path) -> np.ndarray:
    return np.frombuffer(lzma.decompress(path.read_bytes()), dtype="<u2")


def windows_in(stream: Tensor | np.ndarray) -> int:
    """How many windows a stream holds; neighbours share one token, last target and first input."""
    return (len(stream) - 1) // WINDOW


def take_windows(stream: Tensor, index: Tensor) -> Tensor:
    """[..., WINDOW + 1] tokens of the windows with these numbers."""
    offsets = torch.arange(WINDOW + 1, device=stream.device)
    return stream[index[..., None] * WINDOW + offsets].long()


def order(seed: int, windows: int, per_step: int, step: int) -> np.ndarray:
    """Window numbers [per_step] of one step: an order of its own for each seed and epoch, and the
    same for every cell."""
    epoch, at = divmod(step, windows // per_step)
    return _shuffled(seed, epoch, windows)[at * per_step : (at + 1) * per_step]


@lru_cache(maxsize=16)
def _shuffled(seed: int, epoch: int, windows: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(windows)


def sequences(windows: Tensor, context: int, bos_every: Tensor | int = 1) -> tuple[Tensor, Tensor]:
    """Windows [..., n, WINDOW + 1] -> inputs and targets [..., n * WINDOW / context, context].

    All context lengths get the same targets. BOS replaces the first input of a sequence; with
    `bos_every` k only of every k-th (a tensor gives one k per entry of the leading axis).
    """
    lead = windows.shape[:-2]
    inputs = windows[..., :-1].reshape(*lead, -1, context)
    targets = windows[..., 1:].reshape(*lead, -1, context)
    number = torch.arange(inputs.shape[-2], device=windows.device)
    every = torch.as_tensor(bos_every, device=windows.device)
    marked = number % every[..., None] == 0
    first = torch.where(marked, BOS_ID, inputs[..., 0])
    return torch.cat((first[..., None], inputs[..., 1:]), dim=-1), targets
