"""The vocabulary: axis names, the captured columns, and one glossary of every number.

The axis names are the same words in jaxtyping strings, einops patterns, table columns and axis
labels: ``prompt token layer component column rank head d_model d_vocab``.  ``token`` always runs
over the tokens of all prompts, one prompt after the other; ``layer`` is TransformerLens' block
index, from 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Component = Literal["attention", "mlp"]
TokenClass = Literal["bos", "massive", "ordinary"]
ClassSelection = Literal["bos", "massive", "ordinary", "all"]
Reduction = Literal["geomean", "median", "ratio_of_means", "frobenius", "last_token"]
Split = Literal["logmean", "shapley", "path"]
Behaviour = Literal["EXPANDS", "CONTRACTS", "FLAT"]
Role = Literal["short", "long", "reference", "control"]

COMPONENTS: Final = ("attention", "mlp")
TOKEN_CLASSES: Final = ("bos", "massive", "ordinary")
CLASS_SELECTIONS: Final = ("bos", "massive", "ordinary", "all")
REDUCTIONS: Final = ("geomean", "median", "ratio_of_means", "frobenius", "last_token")
SPLITS: Final = ("logmean", "shapley", "path")

GRAM_COLUMNS: Final = ("xx", "aa", "mm", "xa", "xm", "am", "yy", "xa_sq", "xm_sq")
"""What a token leaves behind at one block, with x = resid_pre, a = attn_out, m = mlp_out and
y = resid_post: the six inner products of (x, a, m), then |y|^2, |x+a|^2 and |x+m|^2 measured
directly, because from the Gram matrix alone they cancel where a block erases."""

HEAD_COLUMNS: Final = ("hx", "hy", "hh")
"""What a token leaves behind of one head's write h: its inner products with x = resid_pre and with
y = resid_post, and its squared norm."""

UNIT_ROUNDOFF: Final = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}
"""Largest relative error of rounding to a dtype that gainlens measures in."""
TOP_COMPONENTS: Final = 4
"""How many of the largest |components| of resid_post are kept per token and block."""


@dataclass(frozen=True)
class Term:
    """One entry of the glossary: what a number is, its unit, and where the definition is from."""

    label: str
    unit: str
    meaning: str
    source: str = "gainlens"


# fmt: off
GLOSSARY: Final[dict[str, Term]] = {
    "gain": Term("gain |y|/|x|", "ratio", "norm of a block's output over norm of its input, per token, before the final norm"),
    "log_gain": Term("log gain", "nats", "natural logarithm of the gain"),
    "attention": Term("attention's part", "nats", "what attention's write contributes to the log gain; attention + mlp + remainder = log gain"),
    "mlp": Term("MLP's part", "nats", "what the MLP's write contributes to the log gain"),
    "head": Term("a head's part", "nats", "<h, x+y> / 2L of one head's write h: the heads and b_O's part sum to attention's part under the logarithmic-mean split"),
    "remainder": Term("remainder", "nats", "log gain minus attention's and the MLP's part: rounding of the model's own additions"),
    "logmean": Term("logarithmic-mean split", "nats", "attention = <a, x+y> / 2L, mlp = <m, x+y> / 2L, L = (|y|^2 - |x|^2) / ln(|y|^2/|x|^2)", "additive logarithmic-mean Divisia index, Ang 2004"),
    "shapley": Term("Shapley split", "nats", "mean over both orders of adding attention's and the MLP's write", "Shapley 1953"),
    "path": Term("path split", "nats", "ln(|x+a|/|x|), then ln(|y|/|x+a|): the order in which a sequential block computes"),
    "final_norm": Term("final norm's gain", "nats", "ln of |ln_final(y)|/|y| at the last block: a component of its own"),
    "last_gain": Term("notebook's last_gain", "ratio", "mean over positions of |ln_final(y)| over mean of |x| at the last block, on the notebook's sentence; blind to the last block's scale", "the notebook"),
    "norms": Term("notebook's norms", "L2 norm", "mean over positions of |hidden state|, the last entry after the final norm", "the notebook"),
    "gains": Term("notebook's gains", "ratio", "ratios of neighbouring norms", "the notebook"),
    "cumulative_energy": Term("cumulative energy", "ratio", "product of all gains; telescopes to final_norm / embedding_norm, so it adds nothing", "the notebook"),
    "bos": Term("position 0", "token class", "the first token of a prompt, whether or not it is a BOS token"),
    "massive": Term("massive tokens", "token class", "any other token whose norm at some block's input is at least 10 times the median over the prompt's tokens but the first", "after Sun et al. 2024, arXiv 2402.17762"),
    "ordinary": Term("ordinary tokens", "token class", "every token that is neither position 0 nor massive"),
    "all": Term("all tokens", "token class", "every token of the prompt, the notebook's choice"),
    "geomean": Term("geometric mean", "reduction", "exp of the mean log gain over the tokens of a prompt"),
    "median": Term("median", "reduction", "median gain over the tokens of a prompt"),
    "ratio_of_means": Term("ratio of mean norms", "reduction", "mean |y| over mean |x| over the tokens of a prompt", "the notebook"),
    "frobenius": Term("Frobenius", "reduction", "norm of the whole [token, d_model] output over that of the input"),
    "last_token": Term("last token", "reduction", "gain of the prompt's last token of the class"),
    "frobenius_norm": Term("|W_U| Frobenius", "L2 norm", "square root of the sum of squared entries of lm_head"),
    "spectral_norm": Term("σ_max(W_U)", "L2 norm", "largest singular value of lm_head, unfolded and uncentred"),
    "mean_row_norm": Term("mean row norm of W_U", "L2 norm", "mean L2 norm of lm_head's rows, one row a vocabulary entry"),
    "sigma_per_sqrt_vocab": Term("σ_max/√vocabulary", "L2 norm", "spectral norm over the square root of the vocabulary size"),
    "edge_ratio": Term("σ_max over random edge", "ratio", "σ_max over |W|_F (√V + √d) / √(V d), the edge of a random matrix of the same shape and Frobenius norm", "Bai & Yin 1993"),
    "stable_rank": Term("stable rank", "dimensions", "|W|_F^2 / σ_max^2"),
    "effective_rank": Term("effective rank", "dimensions", "exp of the entropy of σ^2 / Σσ^2", "Roy & Vetterli 2007"),
    "mean_row_cosine": Term("cos(top direction, mean row)", "cosine", "absolute cosine of the top right singular vector with the mean row; softmax ignores the mean row"),
    "visible": Term("W_U-visible share", "fraction", "share of a write's squared norm in the top-k right singular subspace of the centred W_U; chance is k/d_model", "after Stolfo et al. 2024, arXiv 2406.16254"),
    "rope_theta": Term("RoPE theta", "base", "rope_theta of the config, old or new style"),
    "measured_theta": Term("measured theta", "base", "theta recovered from the rotary buffers that the model uses"),
    "sink": Term("attention on position 0", "fraction", "mean over queries after the first of the attention weight on position 0", "Gu et al. 2024, arXiv 2410.10781"),
    "layer": Term("layer", "block index", "TransformerLens' index of a block, from 0"),
    "position": Term("position", "token index", "place of a token in its prompt, from 0"),
    "rank": Term("rank", "index", "place in a list sorted by size, from 1"),
    "rotated_pair": Term("rotated pair", "index", "pair of a head's dimensions that RoPE turns together, from 0, fastest first"),
    "norm": Term("stream norm", "L2 norm", "between two blocks: |resid_pre| of the next, |resid_post| of the last"),
    "spectrum": Term("σ/√vocabulary", "L2 norm", "singular values of lm_head over the square root of the vocabulary size"),
    "wavelengths": Term("wavelength", "tokens a turn", "tokens after which a rotated pair has turned once, after scaling"),
    "effect": Term("effect on the last block's log gain", "nats", "contrast of the cells of a 2 x 2 design, larger minus smaller level"),
    "loss": Term("held-out loss at own context", "nats a token", "cross-entropy on held-out packages in windows of the training context"),
    "delta_log_gain": Term("change of the last block's log gain", "nats", "under an intervention minus without, paired over prompts"),
    "delta_loss": Term("change of the loss", "nats a token", "next-token loss on the prompts, under an intervention minus without, paired over prompts"),
    "delta_last_gain": Term("change of the notebook's last_gain", "ratio", "under an intervention minus without, on the notebook's sentence"),
    "trained_tokens": Term("training", "tokens", "tokens seen so far"),
}
# fmt: on
"""Every number that the output names.  Figures and tables take labels and units from here."""


def check_one_of(what: str, value: object, known: Sequence[str]) -> None:
    """ValueError, with the names that there are, where a name is none of them."""
    if value not in known:
        raise ValueError(f"{what} is one of {', '.join(known)}; got {value!r}")
