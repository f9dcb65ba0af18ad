"""The model card of a shipped twin."""

import math
from typing import Any

from training.design import Cell

LENGTHS = (128, 512, 1024, 2048, 4096)  # at which the shipped twins' held-out loss was measured
WINDOW = 4096  # tokens per held-out window of the shipped twins


def text(cell: Cell, training: dict[str, Any]) -> str:
    """README.md of a twin's directory; every number comes from its training record."""
    compared, measured, corpus = (training[k] for k in ("compared", "measured", "corpus"))
    losses = " | ".join(f"{measured[f'loss_{length}']:.3f}" for length in LENGTHS)
    gain = math.exp(measured["log_gain_last_ordinary"])
    return f"""---
license: mit
library_name: transformers
pipeline_tag: text-generation
tags: [interpretability, code]
---

# {cell.name}

A Llama of 2.65M parameters (8 blocks, d_model 128, 4 heads, vocabulary 4,096), trained for gainlens
in a 2 x 2 design: RoPE theta 10,000 or 500,000, training context 512 or 4,096 tokens. This one has
theta {cell.theta:,.0f} and context {cell.context:,}. Its three twins share everything else: text,
tokenizer, initial weights, data order, steps. It exists to be measured, not to write code.

- **Data**: {compared["tokens"] / 1e6:.0f}M tokens, {corpus["train_tokens"] / 1e6:.0f}M of them
  different, of Python source from {len(corpus["train_packages"])} pinned PyPI packages, exact
  duplicates and generated files dropped, no standard library. Held out whole:
  {", ".join(corpus["held_out_packages"])}. The packages keep their own licences; the weights are
  MIT.
- **Training**: {compared["steps"]:,} steps of {compared["tokens_per_step"]:,} tokens;
  {compared["optimizer"]}; learning rate {compared["peak_learning_rate"]:g},
  {compared["schedule"]}; seed {compared["seed"]}. BOS {compared["bos"]}.
- **Held-out loss**, nats per token, the same text cut into pieces of

  | {" | ".join(str(length) for length in LENGTHS)} |
  | {" | ".join("---" for _ in LENGTHS)} |
  | {losses} |

- **Last block**, ordinary tokens of the mixed prompts: gain {gain:.3f}. The notebook's last_gain,
  taken after the final norm: {measured["notebook_last_gain"]:.3f}.

Beyond its context of {cell.context:,} tokens it was never trained. `training.json` is the machine-
readable record; `scripts/train_twins.py` trains it again.
"""
