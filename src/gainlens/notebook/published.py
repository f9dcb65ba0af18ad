"""List the numbers that the notebook printed beside its own, and those of its published run."""

from gainlens.core.spec import Spec


class ComparisonRow(Spec):
    """Hold one row of the notebook's comparison table."""

    label: str
    context: int
    """tokens"""
    rope_theta: float | None
    """None if the model has no RoPE"""
    last_gain: float
    """notebook's convention, ratio"""
    w_u_spectral: float
    """L2 norm"""
    behaviour: str
    """EXPANDS if last_gain > 1, else CONTRACTS: the notebook has no third word"""
    source: str
    """`measured`, or where the row was published"""


NOTEBOOK_REFERENCES: dict[str, dict[str, float | str]] = {
    "llama3.1-8b": {
        "last_gain": 0.48,
        "w_u_spectral": 94.61,
        "rope_theta": 500000,
        "behavior": "CONTRACTS",
    },
    "mistral-7b": {
        "last_gain": 1.37,
        "w_u_spectral": 16.14,
        "rope_theta": 10000,
        "behavior": "EXPANDS",
    },
}
"""The notebook's REFERENCE, copied from its JSON.  The 0.48 is another metric on another prompt
(Frobenius norm of the whole tensor, before the final norm)."""

_PUBLISHED = (
    "published run of the notebook, float16, buk81/uniformity-asymmetry@e3c7f94 (MIT), "
    "paper3/Results/llama2_vs_llama31_hypothesis_test.json"
)
REFERENCE_ROWS: tuple[ComparisonRow, ...] = (
    ComparisonRow(
        label="Mistral (ref)",
        context=8192,
        rope_theta=10_000,
        last_gain=1.37,
        w_u_spectral=16.14,
        source="the notebook's reference, unsourced there",
        behaviour="EXPANDS",
    ),
    ComparisonRow(
        label="Llama-2-7B (published)",
        context=4096,
        rope_theta=10_000,
        last_gain=0.9225226747869376,
        w_u_spectral=44.400177001953125,
        source=_PUBLISHED,
        behaviour="CONTRACTS",
    ),
    ComparisonRow(
        label="Llama-3.1-8B (published)",
        context=131_072,
        rope_theta=500_000,
        last_gain=1.5331995195328298,
        w_u_spectral=94.60694885253906,
        source=_PUBLISHED,
        behaviour="EXPANDS",
    ),
)

HYPOTHESIS = "Long-context models require dampening (contraction) for numerical stability"
