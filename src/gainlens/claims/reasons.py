"""Records -> plain sentences with numbers: why the verdict is what it is, how far to trust it."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from gainlens.records.comparison import ModelReport
from gainlens.records.gains import MassiveToken
from gainlens.records.interval import Interval


def reasons_for(
    short: ModelReport,
    long: ModelReport,
    premise: bool | None,
    difference: Interval,
    paired: bool,
    causal: Sequence[str],
) -> tuple[str, ...]:
    """Plain sentences with numbers: premise, difference, what the interventions say (`causal`),
    notebook, components, W_U and RoPE."""
    pair = (short, long)
    sentences = [_premise(short, long, premise), _difference(difference, paired), *causal]
    for write in (_notebook, _last_block, _massive):
        sentences += [write(report) for report in pair]
    sentences.append(_unembedding(short, long))
    for report in pair:
        sentences += [line for line in (_visibility(report), _rope(report)) if line]
    return tuple(sentences)


def _premise(short: ModelReport, long: ModelReport, premise: bool | None) -> str:
    if premise is None:
        without = [r.checkpoint.name for r in (short, long) if r.rope.rope_theta is None]
        return f"The premise is not known: {' and '.join(without)} has no RoPE theta."
    thetas = [f"{report.rope.rope_theta:,.0f}" for report in (short, long)]
    contexts = [f"{report.checkpoint.context:,}" for report in (short, long)]
    return (
        f"The premise {'holds' if premise else 'fails'}: theta {thetas[0]} against {thetas[1]}, "
        f"context {contexts[0]} against {contexts[1]} tokens."
    )


def _difference(difference: Interval, paired: bool) -> str:
    how = "paired over prompts" if paired else "unpaired: the prompts differ"
    if not difference.known:
        shown = "not known" if np.isnan(difference.estimate) else f"{difference.estimate:+.4f} nats"
        return f"The difference, long minus short, is {shown} ({how}; {difference.status})."
    within = difference.low <= 0 <= difference.high
    return (
        f"The difference, long minus short, is {difference.estimate:+.4f} nats "
        f"[{difference.low:+.4f}, {difference.high:+.4f}] ({how}, n = {difference.n}), "
        f"{'which may be none' if within else 'which is not 0'}."
    )


def _notebook(report: ModelReport) -> str:
    found = report.residual
    apart = (found.last_gain > 1) != (found.true_last_gain > 1)
    return (
        f"The notebook's last_gain of {report.checkpoint.name}, {found.last_gain:.4g}, is its last "
        f"block, {found.true_last_gain:.4g}, times the final norm, {found.final_norm_gain:.4g}"
        f"{', which turns the answer round' if apart else ''}."
    )


def _last_block(report: ModelReport) -> str:
    last = report.blocks[-1]
    erasers = {
        (False, False): "neither erases",
        (True, False): "attention erases",
        (False, True): "the MLP erases",
        (True, True): "both erase",
    }
    return (
        f"In the last block of {report.checkpoint.name} attention adds {last.attention:+.4f} and "
        f"the MLP {last.mlp:+.4f} nats: "
        f"{erasers[last.attention < 0, last.mlp < 0]}."
    )


def _massive(report: ModelReport) -> str:
    name = report.checkpoint.name
    later = [token for token in report.massive if token.position > 0]
    first = [token for token in report.massive if token.position == 0]
    parts = [
        _fate(tokens, what)
        for tokens, what in ((later, "massive token"), (first, "first position"))
        if tokens
    ]
    return f"{name}: {'; '.join(parts)}." if parts else f"{name} has no massive token here."


def _fate(tokens: Sequence[MassiveToken], what: str) -> str:
    erased = Counter((t.erased_by, t.erased_component) for t in tokens if t.erased_by is not None)
    text = f"{sum(erased.values())} of {len(tokens)} {what}{'s' * (len(tokens) > 1)} erased"
    if not erased:
        return text
    (block, component), count = erased.most_common(1)[0]
    return f"{text}, {count} of them by block {block} ({component})"


def _unembedding(short: ModelReport, long: ModelReport) -> str:
    ratio = long.unembed.spectral_norm / short.unembed.spectral_norm
    vocabulary = np.sqrt(long.unembed.vocab_size / short.unembed.vocab_size)
    return (
        f"The largest singular value of W_U is {ratio:.2f} times as large in the long model: "
        f"{vocabulary:.2f} of it is the square root of the vocabularies' ratio, the rest is "
        f"{ratio / vocabulary:.2f}; the final norm forgets the scale that the last block leaves, "
        "so W_U has nothing to compensate."
    )


def _visibility(report: ModelReport) -> str | None:
    if report.visible_share is None or not np.isfinite(report.visible_share).all():
        return None  # not measured, or a component writes nothing
    attention, mlp = report.visible_share
    chance = report.unembed.subspace_rank / report.unembed.hidden_dim
    return (
        f"W_U's top {report.unembed.subspace_rank} directions see {attention:.1%} of what "
        f"attention and {mlp:.1%} of what the MLP writes in the last block of "
        f"{report.checkpoint.name} (chance {chance:.1%})."
    )


def _rope(report: ModelReport) -> str | None:
    rope = report.rope
    if rope.rope_theta is None or rope.measured_theta is None:
        return None
    text = (
        f"{report.checkpoint.name}'s rotary buffers measure theta {rope.measured_theta:,.0f} where "
        f"its config says {rope.rope_theta:,.0f}; {rope.beyond_context:.0%} of the rotated pairs "
        "turn less than once within its context"
    )
    if rope.theta_bound is None:
        return f"{text}."
    side = "above" if rope.rope_theta >= rope.theta_bound else "below"
    return f"{text}, and theta is {side} the bound of Men et al. for it, {rope.theta_bound:,.0f}."
