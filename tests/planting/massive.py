"""Checkpoints with massive activations whose values, readers and effect on the loss are planted."""

import numpy as np
import torch
from planting.checkpoints import build_model, save_tokenizer

from gainlens.records.inputs import EncodedPrompts

D_MODEL, BOS, MASSIVE, OTHER = 32, 256, 7, 8
CONSTANT, FLAG, MASS, LIFT, NEGATIVE = 0, 1, 2, 3, 4
"""Coordinates: of all tokens, of the tokens to become massive, where they do, where attention
writes what it reads there, and of tokens to become massive with the opposite sign."""
WRITE = 90.0


def massive_checkpoint(folder, flags, *, against=(), reader=-1, lift_seen=True, head=1.0):
    """Block 0's MLP makes flagged tokens massive; one block's attention (uniform: zero query and
    key) reads that on every later token, so that massive activations carry its gain.

    against: flagged tokens that become massive with the opposite sign.
    reader: the block whose attention reads.
    lift_seen: whether the unembedding reads what attention writes.  If not, the write makes all
    other coordinates small beside it, so that the prediction is nearly uniform: random logits
    without the write cost about ten nats.
    head: scale of the unembedding.
    """
    model = build_model(num_hidden_layers=3, num_key_value_heads=4, intermediate_size=4)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0 if "norm" in name else 0.0)
        generator = torch.Generator().manual_seed(3)
        embedding = torch.randn(300, D_MODEL, generator=generator)
        embedding[:, CONSTANT], embedding[:, [FLAG, MASS, LIFT]] = 4.0, 0.0
        if against:
            embedding[:, NEGATIVE] = 0.0
        for token, flag in flags.items():
            embedding[token, NEGATIVE if token in against else FLAG] = flag
        model.model.embed_tokens.weight.copy_(embedding)
        model.lm_head.weight.copy_(head * torch.randn(300, D_MODEL, generator=generator))
        if not lift_seen:
            model.lm_head.weight[:, LIFT] = 0.0
        mlp = model.model.layers[0].mlp
        mlp.gate_proj.weight[0, FLAG], mlp.up_proj.weight[0, FLAG] = 3.0, 1.0
        mlp.down_proj.weight[MASS, 0] = WRITE
        if against:
            mlp.gate_proj.weight[1, NEGATIVE], mlp.up_proj.weight[1, NEGATIVE] = 3.0, 1.0
            mlp.down_proj.weight[MASS, 1] = -WRITE
        attention = model.model.layers[reader].self_attn
        attention.v_proj.weight[0, MASS], attention.o_proj.weight[LIFT, 0] = 1.0, 20.0
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return embedding.numpy().astype(np.float64)


def written(embedding, token):
    """Return what block 0 writes at MASS on a token, float64."""
    read = embedding[token, FLAG] / np.sqrt((embedding[token] ** 2).mean() + 1e-6)
    return WRITE * 3 * read / (1 + np.exp(-3 * read)) * read


def prompts_with_massive(ids=(MASSIVE,), count=20) -> EncodedPrompts:
    """BOS, ordinary tokens, and in each prompt one massive one among them."""
    rng = np.random.default_rng(0)
    tokens = []
    for index in range(count):
        text = rng.integers(20, 250, 8 + index % 5)
        text[2 + index % 4] = ids[index % len(ids)]
        tokens.append(np.concatenate([[BOS], text]))
    names = tuple(str(index) for index in range(count))
    return EncodedPrompts("planted", "", names, tuple(tokens), True, 0, ())
