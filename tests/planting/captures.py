"""Build a Capture from planted vectors."""

import numpy as np
import torch

from gainlens.activations.gram import top_components
from gainlens.records.capture import Capture

LENGTHS = (9, 1, 6)


def capture_of(x: np.ndarray, a: np.ndarray, m: np.ndarray, lengths=LENGTHS) -> Capture:
    """A Capture of [block, token, d_model] vectors with y = x + a + m."""
    y = x + a + m
    tensors = [torch.from_numpy(array) for array in (x, a, m, y)]
    value, index = top_components(tensors[3])
    gram = np.stack(
        [
            (x * x).sum(-1), (a * a).sum(-1), (m * m).sum(-1), (x * a).sum(-1), (x * m).sum(-1),
            (a * m).sum(-1), (y * y).sum(-1), ((x + a) ** 2).sum(-1), ((x + m) ** 2).sum(-1),
        ]
    )  # fmt: skip
    return Capture(
        prompt=np.repeat(np.arange(len(lengths)), lengths),
        position=np.concatenate([np.arange(n) for n in lengths]),
        token_id=np.zeros(sum(lengths), dtype=np.int64),
        gram=gram,
        top_value=value.double().numpy(),
        top_index=index.numpy(),
        normed=np.full(sum(lengths), 2.0),
    )
