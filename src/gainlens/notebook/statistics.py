"""Compute the notebook's statistics of one sentence, to the digit.

Source: buk81/uniformity-asymmetry@e3c7f94 (MIT), paper3/notebooks,
LLaMA2_vs_LLaMA3_Long_Context_Test.ipynb.  Its numbers stand here as it defined them;
`rescoring` says what they cannot carry.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from gainlens.notebook.rule import ratio
from gainlens.records.capture import Capture
from gainlens.records.comparison import NotebookResidual


def notebook_gains(norms: Sequence[float]) -> tuple[float, ...]:
    """Return ratios of neighbouring norms, one fewer than norms; 1.0 if the earlier norm is 0."""
    return tuple(
        after / before if before > 0 else 1.0 for before, after in itertools.pairwise(norms)
    )


def notebook_residual(capture: Capture) -> NotebookResidual:
    """Return the notebook's statistics from a capture of its one sentence.

    Args:
        capture: of one prompt; the notebook's is `load_prompts("notebook")`.

    Norms are L2 norms, means over positions of Hugging Face's hidden_states: entry l is what enters
    block l, the last is the stream after the final norm.  The gain of the last block itself and
    that of the final norm stand beside: their product is the notebook's last_gain.
    Raises ValueError if a norm is not finite.

    Examples:
        >>> sentence = gainlens.encode_for(loaded, gainlens.load_prompts("notebook"))
        >>> residual = gainlens.notebook_residual(gainlens.capture(loaded.model, sentence))
        >>> round(residual.last_gain, 2), round(residual.true_last_gain, 2)
        (0.69, 1.13)
    """
    assert capture.num_prompts == 1, "the notebook has one sentence"
    entering = np.sqrt(capture.column("xx")).mean(axis=1)
    leaving = float(np.sqrt(capture.column("yy")[-1]).mean())
    norms = tuple(float(norm) for norm in [*entering, capture.normed.mean()])
    if not all(math.isfinite(norm) for norm in (*norms, leaving)):
        raise ValueError(
            "the residual stream is not finite on the notebook's sentence (mean norms "
            f"{', '.join(f'{norm:g}' for norm in norms)}); measure in float32 or bfloat16"
        )
    gains = notebook_gains(norms)
    return NotebookResidual(
        norms=norms,
        gains=gains,
        embedding_norm=norms[0],
        final_norm=norms[-1],
        initial_gain=gains[0],
        last_gain=gains[-1],
        last_expands=gains[-1] > 1.0,
        cumulative_energy=math.prod(gains),
        num_layers=len(gains),
        contracting_layers=sum(gain < 1.0 for gain in gains),
        expanding_layers=sum(gain >= 1.0 for gain in gains),
        true_last_gain=ratio(leaving, norms[-2]),
        final_norm_gain=ratio(norms[-1], leaving),
    )
