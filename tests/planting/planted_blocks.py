"""Checkpoints whose last block's gain is known on every token, as real Llama directories.

Every block but the last writes nothing.  In the last, attention writes `lift` along a coordinate
that no embedding uses, and the MLP writes parallel to its input: SwiGLU with `up` the identity and
a gate that reads a constant coordinate (so that it is open) and a token's own coordinate (so that
gains differ between tokens, and an interval exists).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from planting.checkpoints import build_model, save_tokenizer

D_MODEL, BLOCKS = 32, 3
CONSTANT, OWN, LIFT = 0, 1, 2
"""Coordinates: the same for every token, a token's own, and attention's."""
GATE = 3.0


@dataclass(frozen=True)
class Planted:
    """A checkpoint and its truth."""

    folder: Path
    embedding: np.ndarray
    scale: float
    lift: float
    spread: float

    def truth(self, tokens: np.ndarray) -> dict[str, np.ndarray]:
        """Per token: the norms of x, a, x + a and y at the last block, in float64."""
        x = self.embedding[tokens].astype(np.float64)
        middle = x.copy()
        middle[:, LIFT] += self.lift
        rms = np.sqrt((middle**2).mean(-1) + 1e-6)
        gate = GATE * (middle[:, CONSTANT] + self.spread * middle[:, OWN]) / rms
        factor = 1 + self.scale * gate / (1 + np.exp(-gate)) / rms
        sizes = {"x": x, "middle": middle, "y": middle * factor[:, None]}
        return {name: np.linalg.norm(value, axis=-1) for name, value in sizes.items()}

    def gain(self, tokens: np.ndarray) -> np.ndarray:
        truth = self.truth(tokens)
        return truth["y"] / truth["x"]


def planted_checkpoint(
    folder: Path,
    gain: float,
    *,
    lift: float = 0.0,
    spread: float = 0.05,
    theta: float = 1e4,
    context: int = 128,
) -> Planted:
    """Write a checkpoint whose last block's MLP scales the stream by `gain`, on a typical token."""
    model: Any = build_model(
        num_hidden_layers=BLOCKS,
        hidden_size=D_MODEL,
        intermediate_size=D_MODEL,
        num_key_value_heads=4,
        max_position_embeddings=context,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0 if "norm" in name else 0.0)
        generator = torch.Generator().manual_seed(7)
        embedding = torch.randn(model.config.vocab_size, D_MODEL, generator=generator)
        embedding[:, CONSTANT], embedding[:, LIFT] = 4.0, 0.0
        model.model.embed_tokens.weight.copy_(embedding)
        model.lm_head.weight.copy_(torch.randn(embedding.shape, generator=generator))
        last = model.model.layers[-1]
        rms = float(embedding.square().mean(-1).sqrt().mean())
        _plant_attention(last.self_attn, lift, rms)
        opening = GATE * 4.0 / rms
        scale = (gain - 1) * rms / (opening / (1 + np.exp(-opening)))
        last.mlp.gate_proj.weight[:, CONSTANT] = GATE
        last.mlp.gate_proj.weight[:, OWN] = GATE * spread
        last.mlp.up_proj.weight.copy_(torch.eye(D_MODEL))
        last.mlp.down_proj.weight.copy_(torch.eye(D_MODEL) * scale)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return Planted(folder, embedding.numpy(), scale, lift, spread)


def _plant_attention(attention: Any, lift: float, rms: float) -> None:
    """Zero query and key: uniform attention over values that are the (nearly constant) coordinate.

    Only a lift of 0 is exact: the value is the constant coordinate over each token's own rms.
    """
    attention.v_proj.weight[0, CONSTANT] = 1.0
    attention.o_proj.weight[LIFT, 0] = lift * rms / 4.0


TEXTS = [
    "The harbour was empty but for two boats.", "def area(r): return 3.14 * r * r",
    "Wir haben gestern lange gewartet.", "1. flour 2. sugar 3. salt", "Where did you put the keys?",
    "SELECT name FROM birds WHERE wings > 2;", "Rain again, and no letter.", "x^2 + y^2 = z^2",
    "Il pleut sur la ville.", "Take the second door on the left.", "for i in range(10): print(i)",
    "Nobody reads the manual until it is too late.", "¿Dónde está la biblioteca?", "a, b, c, d, e",
    "The committee met on Tuesday and decided nothing.", "<p>Hello, <b>world</b></p>",
    "Stars are hot balls of gas, far away.", "Il treno parte alle nove.", "git commit -m 'fix'",
    "Dear Sir, your parcel has not arrived.",
]  # fmt: skip
