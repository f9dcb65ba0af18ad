"""Name the axes, the captured columns and the choices that options take.

The axis names are the same words in jaxtyping strings, einops patterns and axis labels:
``prompt token block component column rank head d_model d_vocab``.  ``token`` runs over the tokens
of all prompts, one prompt after the other.  ``block`` is TransformerLens' index, from 0.  Tables
and result.json keep the notebook's word `layer` for it.
"""

from typing import Final, Literal

TokenClass = Literal["bos", "massive", "ordinary", "all"]
Reduction = Literal["geomean", "median", "ratio_of_means", "frobenius", "last_token"]
Split = Literal["logmean", "shapley", "path"]
Behaviour = Literal["EXPANDS", "CONTRACTS", "FLAT"]
Component = Literal["attention", "mlp"]
Role = Literal["short", "long", "reference", "control", "model"]
"""`model` has no part in a claim: `measure` gives it to every model"""
Outcome = Literal["CONFIRMED", "REJECTED", "UNEXPECTED", "INVERTED", "UNDETERMINED", "NOT TESTED"]
Lengths = Literal["all", "short", "long"]
"""all prompts, or the shorter or longer half by number of tokens"""
Unit = Literal["prompts", "seeds"]
Basis = Literal["equal tokens", "equal loss", "equal tokens and equally many first positions"]
"""at what point of training the runs of a design are compared"""

COMPONENTS: Final = ("attention", "mlp")
TOKEN_CLASSES: Final = ("bos", "massive", "ordinary", "all")
REDUCTIONS: Final = ("geomean", "median", "ratio_of_means", "frobenius", "last_token")
SPLITS: Final = ("logmean", "shapley", "path")

GRAM_COLUMNS: Final = ("xx", "aa", "mm", "xa", "xm", "am", "yy", "xa_sq", "xm_sq")
"""Numbers kept per token and block, with x = resid_pre, a = attn_out, m = mlp_out, y = resid_post:
the six inner products of (x, a, m), then |y|^2, |x+a|^2 and |x+m|^2.  The last three are measured
directly, because computing them from the others loses precision if a block erases."""

HEAD_COLUMNS: Final = ("hx", "hy", "hh")
"""Numbers kept per token of one head's write h: its inner products with x = resid_pre and with
y = resid_post, and its squared norm."""

UNIT_ROUNDOFF: Final = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}
"""Largest relative error of rounding to a dtype that gainlens measures in."""
TOP_COMPONENTS: Final = 4
"""How many of the largest |components| of resid_post are kept per token and block."""

CAPTURE_COLUMNS: Final = (
    *GRAM_COLUMNS,
    "normed",
    *(f"{share}_{component}" for share in ("visible", "null") for component in COMPONENTS),
    *(f"top_{what}_{rank}" for rank in range(TOP_COMPONENTS) for what in ("value", "index")),
)
"""Names of the captured numbers per token, in the order of tokens.parquet."""


_CONTRACT_KEYS: Final = {"block": "layer", "blocks": "layers", "num_blocks": "num_layers"}


def contract_key(field: str) -> str:
    """Return a field's name in result.json and the tables, which keep the notebook's words."""
    return _CONTRACT_KEYS.get(field, field)
