"""Show what the notebook's models and its test are, as rows of label, value and meaning."""

from collections.abc import Iterator
from typing import Final

from gainlens.core.table import Table
from gainlens.notebook.rescored import NotebookTest, PairReason, Rescore
from gainlens.notebook.result_file import (
    ERASES_BELOW,
    PLAUSIBLE_WEIGHT,
    FileModel,
    Rope,
    Unembedding,
)
from gainlens.notebook.wording import facts, sentence, three

_PAIR_REASONS: Final[dict[PairReason, str]] = {
    "roles": "the file does not give exactly one model the role short and one the role long",
    "two_models": "the notebook's test needs two models; the file has another number, and no roles",
    "no_last_gains": "the file has no last_gain in the notebook's sense",
}
_CHOSEN: Final = {
    "role": "the roles in the file",
    "order": "their order in the file: the notebook writes the short-context model first",
}


def test_table(score: Rescore) -> Table:
    """Return the notebook's test on recomputed numbers, or why it is not done."""
    if score.pair is None:
        reason = _PAIR_REASONS[score.pair_reason or "no_last_gains"]
        return facts("the notebook's test", [("not done", "", reason)])
    title = f"the notebook's test: {score.pair.short} against {score.pair.long}"
    return facts(title, _test_rows(score.pair))


def _test_rows(pair: NotebookTest) -> Iterator[tuple[str, str, str]]:
    told = f"told apart by {_CHOSEN[pair.chosen_by]}"
    yield "short and long", f"{pair.short}, {pair.long}", told
    stated = pair.stated_verdict or pair.WHY_UNKNOWN["stated_verdict"]
    yield "verdict", pair.verdict, f"by the notebook's rule; stated: {stated}"
    for name in ("theta_ratio", "gain_ratio"):
        value: float | None = getattr(pair, name)
        yield name, three(value), pair.WHY_UNKNOWN[name] if value is None else "long over short"
    if pair.wu_ratio is None or pair.wu_vocabulary is None or pair.wu_rest is None:
        yield "wu_ratio", "unknown", pair.WHY_UNKNOWN["wu_ratio"]
    else:
        parts = (
            f"= {pair.wu_vocabulary:.3f} x {pair.wu_rest:.3f}: the square root of the vocabulary"
        )
        yield "wu_ratio", three(pair.wu_ratio), f"{parts} ratio, and the rest"
    yield from (("contradiction", one.place, sentence(one)) for one in pair.findings)


def model_table(key: str, model: FileModel) -> Table:
    """Return what the numbers of one model are and what follows from them."""
    return facts(key, _model_rows(model))


def _model_rows(model: FileModel) -> Iterator[tuple[str, str, str]]:
    residual = model.residual
    last = residual.normed_entry - 1
    yield "normed state", f"entry {residual.normed_entry}", "; ".join(_evidence(model))
    yield (
        "last_gain is",
        three(residual.recomputed[-1]),
        f"mean norm after the final norm (entry {last + 1}) over mean norm of what enters block "
        f"{last} (entry {last}): that block's gain times the final norm's",
    )
    block = "" if residual.true_last_gain is None else three(residual.true_last_gain)
    yield (
        "last_gain is not",
        block,
        f"block {last}'s gain: the final norm forgets its input's scale, so the block could "
        "multiply the stream by any factor and this number would not move",
    )
    if residual.writes is None:
        yield "writing block", "none", residual.WHY_UNKNOWN["writes"]
    else:
        gain = f"gain {residual.writes.gain:.4g}: the mean norm jumps here, as where massive tokens"
        yield "writing block", f"block {residual.writes.layer}", f"{gain} are written"
    for change in residual.erases:
        gain = f"gain {change.gain:.4g}: the mean norm falls here"
        yield "erasing block", f"block {change.layer}", gain
    if not residual.erases:
        seen = "no block" if block else "no block before the last"
        yield "erasing block", "none", f"{seen} has a gain below {ERASES_BELOW:g}"
    if residual.final_over_embedding is None:
        yield "cumulative_energy", "unknown", residual.WHY_UNKNOWN["final_over_embedding"]
    else:
        ratio = f"telescopes to final over embedding norm, {residual.final_over_embedding:.4g}"
        yield "cumulative_energy", f"{residual.product:.4g}", f"{ratio}: no information"
    yield from _unembedding_rows(model.w_u)
    yield _rope_row(model.rope)
    yield from (("contradiction", one.place, sentence(one)) for one in model.findings)


def _evidence(model: FileModel) -> Iterator[str]:
    """Yield why the last entry is taken for the normed state: a convention, and what agrees."""
    residual = model.residual
    blocks = "an unstated number of" if model.num_layers is None else f"{model.num_layers}"
    yield (
        f"{len(residual.norms)} entries for {blocks} blocks; Hugging Face's hidden_states has one "
        "more than blocks, and takes the last after the final norm"
    )
    if model.norm_per_sqrt_width is not None:
        low, high = PLAUSIBLE_WEIGHT
        agrees = (
            "agrees with" if low <= model.norm_per_sqrt_width <= high else "does NOT agree with"
        )
        yield (
            f"its norm is {model.norm_per_sqrt_width:.3f} times sqrt(d_model), which {agrees} a "
            f"trained norm weight's root mean square ({low:g} to {high:g}); that alone would not "
            "prove it"
        )
    if residual.median_gain is not None:
        yield (
            f"the step into it is {residual.recomputed[-1]:.4f}, the median step before it "
            f"{residual.median_gain:.4f}"
        )
    block, norm = residual.true_last_gain, residual.final_norm_gain
    if block is not None and norm is not None:
        yield (
            f"measured: block {block:.4f} x final norm {norm:.4f} = {block * norm:.4f}, last_gain "
            f"{residual.recomputed[-1]:.4f}"
        )


def _unembedding_rows(w_u: Unembedding | None) -> Iterator[tuple[str, str, str]]:
    if w_u is None:
        yield "W_U", "unknown", FileModel.WHY_UNKNOWN["w_u"]
        return
    yield (
        "σ_max(W_U) over random edge",
        f"{w_u.edge_ratio:.1f}x",
        f"{w_u.spectral_norm:.2f} against {w_u.edge:.2f} for a random matrix of this shape and "
        "Frobenius norm; far above 1 there is a direction that the rows share",
    )
    yield (
        "energy of the top direction",
        f"{w_u.energy_share:.1%}",
        "σ_max² over |W_U|²; a part common to all rows would leave softmax as it is",
    )


def _rope_row(rope: Rope | None) -> tuple[str, str, str]:
    if rope is None or rope.theta_over_bound is None:
        return "RoPE theta", "unknown", Rope.WHY_UNKNOWN["theta_over_bound"]
    side = "below" if rope.theta_over_bound < 1 else "at or above"
    scaled = "; the config scales frequencies as well, so theta alone says less"
    return (
        "RoPE theta",
        f"{rope.rope_theta:,.0f}",
        f"{side} the bound {rope.theta_bound:,.0f} for a context of {rope.max_position:,} (Men et "
        f"al. 2024){scaled if rope.scaled else ''}",
    )
