"""Interventions on tokens: massive activations set to their mean, and BOS dropped or doubled.

Sun et al. 2024 (arXiv 2402.17762, section 4.1): set to zero, massive activations take the model
with them; set to their mean, nothing happens: they are fixed biases.  Here the gain is asked too.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import Float64
from torch import Tensor

from gainlens.activations.capturing import capture
from gainlens.interventions.baseline import Baseline, changes, measure_last, with_sentence
from gainlens.interventions.replacements import Rows
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.massive import massive_states
from gainlens.metrics.reductions import reduce_gains
from gainlens.models.config import rope_from_config
from gainlens.models.hooks import scoped, writing
from gainlens.models.sites import sites_of
from gainlens.records.capture import Capture
from gainlens.records.gains import Decomposition
from gainlens.records.inputs import EncodedPrompts
from gainlens.records.interventions import ControlEffect

CARRIER = 0.05
"""A dimension carries a massive token where it holds this share of its squared norm."""

MassiveHow = Literal["mean", "zero"]


@dataclass(frozen=True)
class MassiveEntry:
    """One massive activation: a component of the stream where a block writes it."""

    block: int
    """the block after which the token is massive"""
    prompt: int
    position: int
    dim: int
    value: float


def massive_entries(
    captured: Capture, decomposition: Decomposition, ratio: float = 10.0
) -> tuple[MassiveEntry, ...]:
    """Every massive activation, position 0 included, where it first appears.

    At the output of the block that makes its token massive (of block 0, where a token enters
    massive): the dimensions that hold at least 5 % of the squared norm there.
    """
    states = massive_states(decomposition, ratio)[:-1]
    squared = captured.column("yy")
    found: list[MassiveEntry] = []
    for token in np.flatnonzero(states.any(axis=0)).tolist():
        block = max(int(np.argmax(states[:, token])) - 1, 0)
        values = captured.top_value[block, token].astype(np.float64)
        carries = values**2 >= CARRIER * squared[block, token]
        place = int(captured.prompt[token]), int(captured.position[token])
        dims = captured.top_index[block, token][carries]
        found += [
            MassiveEntry(block, *place, int(dim), float(value))
            for dim, value in zip(dims, values[carries], strict=True)
        ]
    return tuple(found)


def massive_effects(baseline: Baseline) -> tuple[ControlEffect, ...]:
    """Massive activations set to their mean, and to zero: the gain curve and the loss.

    Args:
        baseline: from `baseline_of`.

    The mean is over the prompts (and the notebook's sentence), of one block and dimension, of
    position 0 and of other tokens apart.  Without massive activations there is no change, and the
    note says so.
    """
    sentence = capture(baseline.model, baseline.sentence)
    ratio = baseline.rule.massive_ratio
    own = massive_entries(baseline.capture, baseline.decomposition, ratio)
    behind = massive_entries(sentence, decompose(sentence, massive_ratio=ratio), ratio)
    last = len(baseline.prompts.tokens)
    entries = (*own, *(replace(entry, prompt=last) for entry in behind))
    curve = _curve(baseline, baseline.capture, baseline.decomposition)
    if not own:
        nothing = "no token is massive on these prompts"
        return tuple(
            ControlEffect(f"massive to {how}", nothing, None, curve, curve)
            for how in ("mean", "zero")
        )
    note = f"{len(own)} activations on {len({(e.prompt, e.position) for e in own})} tokens"
    before = measure_last(baseline)
    effects: list[ControlEffect] = []
    hows: tuple[MassiveHow, ...] = ("mean", "zero")
    for how in hows:
        with massive_set(baseline, entries, how):
            after = measure_last(baseline)
            under = capture(baseline.model, baseline.prompts)
        (change,) = changes(before, [after], baseline.rule, baseline.dtype)
        classes = replace(decompose(under), is_massive=baseline.decomposition.is_massive)
        after_curve = _curve(baseline, under, classes)
        effects.append(ControlEffect(f"massive to {how}", note, change, curve, after_curve))
    return tuple(effects)


@contextmanager
def massive_set(
    baseline: Baseline, entries: Sequence[MassiveEntry], how: MassiveHow
) -> Generator[None]:
    """Every massive activation of the prompts set to its mean, or to zero, where it first appears.

    `prompt` of an entry counts the baseline's prompts, then the notebook's sentence.
    """
    groups: dict[tuple[int, int, bool], list[float]] = {}
    for entry in entries:
        groups.setdefault(_group(entry), []).append(entry.value)
    means = {key: float(np.mean(values)) for key, values in groups.items()}
    places: dict[int, dict[int, list[tuple[int, int, float]]]] = {}
    for entry in entries:
        value = means[_group(entry)] if how == "mean" else 0.0
        at_layer = places.setdefault(entry.block, {})
        at_layer.setdefault(entry.prompt, []).append((entry.position, entry.dim, value))
    sites = sites_of(baseline.model)
    rows = Rows(with_sentence(baseline))
    writers = [
        (sites.site(f"blocks.{block}.hook_resid_post"), _setter(rows, at_layer))
        for block, at_layer in places.items()
    ]
    seen = partial(sites.embedding.register_forward_pre_hook, rows.see, with_kwargs=True)
    with scoped([seen]), writing(writers):
        yield


def _group(entry: MassiveEntry) -> tuple[int, int, bool]:
    return entry.block, entry.dim, entry.position == 0


def _setter(
    rows: Rows, places: Mapping[int, Sequence[tuple[int, int, float]]]
) -> Callable[[Tensor], Tensor]:
    def write(tensor: Tensor) -> Tensor:
        new = tensor.clone()
        for row, key in enumerate(rows.keys(tensor)):
            index = rows.prompt(key)
            assert index is not None, "only the baseline's prompts and sentence are run"
            for position, dim, value in places.get(index, ()):
                new[row, position, dim] = value
        return new

    return write


def bos_effects(baseline: Baseline) -> tuple[ControlEffect, ...]:
    """BOS dropped from every prompt, and doubled: the gain curve and the loss on the same text.

    Args:
        baseline: from `baseline_of`.

    Either side is judged on its own token classes (position 0 is another token).  The loss is over
    the text's tokens but its first, which cannot be predicted without BOS.  Where a prompt fills
    the model's context its last token is left out on either side, to make room.
    """
    room = rope_from_config(baseline.config).max_position
    if not baseline.prompts.bos:
        curve = _curve(baseline, baseline.capture, baseline.decomposition)
        nothing = "the tokenizer prepends no BOS"
        return tuple(
            ControlEffect(name, nothing, None, curve, curve)
            for name in ("BOS dropped", "BOS doubled")
        )
    if room is not None and max(map(len, baseline.prompts.tokens)) >= room:
        baseline = _retokenised(baseline, partial(_cut, room - 1))
    before = measure_last(baseline, skip=1)
    curve = _curve(baseline, baseline.capture, baseline.decomposition)
    effects: list[ControlEffect] = []
    for name, change_tokens, skip in (
        ("BOS dropped", _without_first, 0),
        ("BOS doubled", _with_first_twice, 2),
    ):
        variant = _retokenised(baseline, change_tokens)
        after = measure_last(variant, skip=skip)
        (change,) = changes(before, [after], baseline.rule, baseline.dtype)
        after_curve = _curve(variant, variant.capture, variant.decomposition)
        note = f"on {len(variant.prompts.tokens)} prompts"
        effects.append(ControlEffect(name, note, change, curve, after_curve))
    return tuple(effects)


def _cut(length: int, tokens: np.ndarray) -> np.ndarray:
    return tokens[:length]


def _without_first(tokens: np.ndarray) -> np.ndarray:
    return tokens[1:]


def _with_first_twice(tokens: np.ndarray) -> np.ndarray:
    return np.concatenate([tokens[:1], tokens])


def _retokenised(baseline: Baseline, change: Callable[[np.ndarray], np.ndarray]) -> Baseline:
    """The same model on changed token ids, with the classes that they have."""

    def changed(prompts: EncodedPrompts) -> EncodedPrompts:
        return replace(prompts, tokens=tuple(change(tokens) for tokens in prompts.tokens))

    prompts = changed(baseline.prompts)
    captured = capture(baseline.model, prompts)
    decomposition = decompose(captured, massive_ratio=baseline.rule.massive_ratio)
    return replace(
        baseline,
        prompts=prompts,
        sentence=changed(baseline.sentence),
        capture=captured,
        decomposition=decomposition,
    )


def _curve(
    baseline: Baseline, captured: Capture, decomposition: Decomposition
) -> Float64[np.ndarray, " block"]:
    """Every block's log gain under the primary estimand, mean over prompts that have the class."""
    rule = baseline.rule
    gains = reduce_gains(decomposition, rule.token_class, rule.reduction).log_gain
    known = gains[:, ~np.isnan(gains).any(axis=0)]
    return known.mean(axis=1) if known.size else np.full(len(gains), np.nan)
