"""Random prompts, and a count of the hooks on a model."""

import numpy as np

from gainlens.records.inputs import EncodedPrompts

LENGTHS = (12, 30, 12, 1, 7)


def prompts_of(lengths=LENGTHS, seed=0) -> EncodedPrompts:
    rng = np.random.default_rng(seed)
    tokens = tuple(np.concatenate([[256], rng.integers(0, 256, n - 1)]) for n in lengths)
    return EncodedPrompts(
        source="test",
        sha256="",
        ids=tuple(f"p{i}" for i in range(len(lengths))),
        tokens=tokens,
        bos=True,
        cut=0,
        left_out=(),
    )


def hooks_of(model) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
