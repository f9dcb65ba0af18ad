"""Corpus -> byte-level BPE tokenizer, token streams on disk, windows, their order, BOS."""

import json
import lzma
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor

BOS, EOS = "<s>", "</s>"
BOS_ID, EOS_ID = 0, 1
VOCABULARY = 4096
SAMPLE_BYTES = 48_000_000  # text that the merges are learned from


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


def encode(
    tokenizer: Tokenizer, packages: Sequence[Sequence[str]]
) -> tuple[np.ndarray, np.ndarray]:
    """Return one stream [token] uint16 of all packages, an EOS after each, and tokens per file.

    Text that spells a special token is encoded as ordinary characters: BOS stands nowhere but where
    the trainer puts it.
    """
    tokenizer.encode_special_tokens = True
    parts: list[np.ndarray] = []
    file_tokens: list[int] = []
    for files in packages:
        for encoding in tokenizer.encode_batch_fast(list(files), add_special_tokens=False):
            parts.append(np.asarray(encoding.ids, dtype=np.uint16))
            file_tokens.append(len(parts[-1]))
        parts.append(np.asarray([EOS_ID], dtype=np.uint16))
    tokenizer.encode_special_tokens = False
    return np.concatenate(parts), np.asarray(file_tokens)


def write_stream(path: Path, stream: np.ndarray) -> None:
    """uint16, little endian, xz: a sixth of the text, small enough to carry to another machine."""
    path.write_bytes(lzma.compress(stream.astype("<u2").tobytes(), preset=2))


def read_stream(path: Path) -> np.ndarray:
    return np.frombuffer(lzma.decompress(path.read_bytes()), dtype="<u2")


def windows_in(stream: Tensor | np.ndarray, window: int) -> int:
    """Count the windows of a stream; neighbours share one token, last target and first input."""
    return (len(stream) - 1) // window


def take_windows(stream: Tensor, index: Tensor, window: int) -> Tensor:
    """Return the tokens [..., window + 1] of the windows with these numbers."""
    offsets = torch.arange(window + 1, device=stream.device)
    return stream[index[..., None] * window + offsets].long()


def order(seed: int, windows: int, per_step: int, steps: int) -> np.ndarray:
    """Return the window numbers [step, per_step] of a training's steps.

    Every seed and epoch has an order of its own; it is the same for every cell. What is left of an
    epoch below one step is not read.
    """
    per_epoch = windows // per_step
    epochs = [
        np.random.default_rng([seed, epoch]).permutation(windows)[: per_epoch * per_step]
        for epoch in range(-(-steps // per_epoch))
    ]
    return np.concatenate(epochs).reshape(-1, per_step)[:steps]


def with_bos(
    windows: Tensor, positions: Tensor, bos_every: Tensor | int = 1
) -> tuple[Tensor, Tensor]:
    """Cut windows [..., window, token + 1] into inputs and targets [..., token], windows joined.

    The targets do not depend on how the tokens are cut into sequences. BOS replaces the first input
    of a sequence, of which `positions` [token] is 0; with `bos_every` k only of every k-th (a
    tensor gives one k per entry of the leading axis).
    """
    inputs = windows[..., :-1].flatten(-2)
    targets = windows[..., 1:].flatten(-2)
    starts = positions == 0
    number = starts.cumsum(0) - 1
    every = torch.as_tensor(bos_every, device=windows.device)
    return torch.where(starts & (number % every[..., None] == 0), BOS_ID, inputs), targets
