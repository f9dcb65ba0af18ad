"""Title and caption every figure of the page."""

from typing import Final

CLAIM_CAPTION: Final = (
    "Every number that bears on the claim with its interval; what the claim predicts is shaded. "
    "A claim with an intervention has its random control beside it, with a mark per draw."
)
FIGURES: Final[dict[str, tuple[str, str]]] = {
    "headline": (
        "The answer at a glance",
        "Log gain of every block of the short and the long model, split into attention and MLP, "
        "and every model's last block as it is, beside the notebook's number.",
    ),
    "importance": (
        "What each block does, and what skipping it costs",
        "Every measure of every block with its interval over prompts, and the rank correlation of "
        "each with the skip loss.",
    ),
    "series": (
        "Along the series",
        "Gain of the last block against the training step or the length of the prompts, with its "
        "interval.",
    ),
    "gain_curve": (
        "Gain of every block",
        "Gain of every block of every model with its simultaneous band; above 1 a block expands. "
        "The axis is broken if the first block lies far above the others.",
    ),
    "splits": (
        "Attention and MLP in every block",
        "Log gain of every block of every model, split into attention's and the MLP's part.",
    ),
    "verdict_forest": (
        "Every way of measuring the last block",
        "Gain of the last block for each token class, reduction and length of prompts, before and "
        "after the final norm. The shaded row was named before the run.",
    ),
    "massive_lifecycle": (
        "Massive tokens from writing to erasing",
        "Norm of position 0, massive and ordinary tokens, and how many tokens each block makes "
        "massive or erases.",
    ),
    "heads": (
        "Heads",
        "Part of the log gain that each head writes, mean over prompts. The largest are ranked, or "
        "shown by step or length.",
    ),
    "gain_by_position": (
        "Gain against position",
        "Gain of the last block by position in the prompt, with quartiles over prompts.",
    ),
    "attribution": (
        "What the difference can be put down to",
        "Effects of theta, of context and of both on the last block's log gain, with intervals.",
    ),
    "training": (
        "Along training",
        "Held-out loss, the last block's gain and the notebook's number of every cell of the "
        "shipped design against tokens seen, all seeds.",
    ),
    "ablation_zero": (
        "Components ablated to zero, one at a time",
        "Change of the last block's log gain, of the notebook's number and of the loss with each "
        "component of the last blocks set to 0.",
    ),
    "ablation_mean": (
        "Components ablated to their mean, one at a time",
        "The same with each component set to its mean over the prompts.",
    ),
    "theta_dose": (
        "Theta on fixed weights",
        "Change of the last block's log gain and of the loss when the same weights are measured "
        "under another RoPE base.",
    ),
    "unembed_spectrum": (
        "Spectrum of the unembedding",
        "Singular values of W_U over the square root of the vocabulary, by rank.",
    ),
    "rope_wavelengths": (
        "RoPE wavelengths",
        "Tokens per turn of every rotated pair of dimensions, against each model's context.",
    ),
    "notebook": (
        "The notebook's figure",
        "The notebook's bars and curves, drawn from this run: its last_gain is taken after the "
        "final norm.",
    ),
}
"""Title and description of every figure, in the order of reading."""
