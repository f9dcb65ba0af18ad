"""Say what a published number is: which state, over which tokens, and what cannot follow from it.

The conventions are those of the files of buk81/uniformity-asymmetry@e3c7f94 (MIT), paper3/Results.
A file that does not state its convention is read by the notebook beside it in paper3/notebooks.
"""

import re
from typing import Final, Literal

State = Literal[
    "last block",
    "penultimate block",
    "last block and final norm",
    "attention write",
    "mlp write",
    "copied",
    "unclear",
]
Reduction = Literal["last_token", "ratio_of_means", "frobenius", "unknown"]
Basis = Literal["file", "numbers", "notebook", "none"]

STATES: Final[dict[State, str]] = {
    "last block": "what leaves the last block over what enters it, before the final norm",
    "penultimate block": "what enters the last block over what enters the block before it: the "
    "penultimate block's gain; the last block has no part in it",
    "last block and final norm": "what leaves the final norm over what enters the last block: the "
    "last block's gain times the final norm's",
    "attention write": "norm of attention's output over norm of its own input",
    "mlp write": "norm of the MLP's output over norm of its own input",
    "copied": "a number from elsewhere that this file does not measure",
    "unclear": "a ratio of norms; the file does not show which states it compares",
}
REDUCTIONS: Final[dict[Reduction, str]] = {
    "last_token": "the last token of each prompt",
    "ratio_of_means": "the mean norm over all tokens",
    "frobenius": "the Frobenius norm of all tokens together",
    "unknown": "tokens not stated",
}
BASES: Final[dict[Basis, str]] = {
    "file": "stated in the file",
    "numbers": "shown by the file's own numbers",
    "notebook": "by the notebook that writes such files",
    "none": "not known",
}

STATE_LIMITS: Final[dict[State, str]] = {
    "penultimate block": "whether the last block expands or contracts: the number called last is "
    "the penultimate block's",
    "last block and final norm": "whether the last block expands or contracts: the final norm "
    "forgets its input's scale, so the block could multiply the stream by any factor",
    "attention write": "whether the residual stream grows: the sublayer's input is normed in some "
    "models and not in others, and its output is added to the stream",
    "mlp write": "whether the residual stream grows: the sublayer's input is normed in some models "
    "and not in others, and its output is added to the stream",
    "copied": "anything new about the copied gains: they are as good as the file they come from",
    "unclear": "which block the unclear numbers belong to",
}
REDUCTION_LIMITS: Final[dict[Reduction, str]] = {
    "frobenius": "what happens to ordinary tokens: one massive token, mostly position 0, holds "
    "nearly all of a Frobenius norm over tokens",
    "last_token": "what happens to any token but the last of each prompt",
    "ratio_of_means": "which tokens it is about: a mean over positions mixes position 0 and "
    "massive tokens with the rest",
}


def model_key(name: str) -> str:
    """Return a model's name without its owner, punctuation, "base" and first version.

    `meta-llama/Llama-3.1-8B`, `llama3.1-8b-BASE` and `LLaMA-3.1-8B` are one key.
    """
    short = name.rsplit("/", 1)[-1].lower()
    short = re.sub(r"[-_](base|v0\.1)$", "", short)
    return re.sub(r"[^a-z0-9.]", "", re.sub(r"[-_](it|instruct)$", "instruct", short))
