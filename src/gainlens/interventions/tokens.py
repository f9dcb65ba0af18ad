"""Change tokens: set massive activations to their mean or zero, drop or double BOS.

Sun et al. 2024 (arXiv 2402.17762, section 4.1) found that a model breaks if its massive activations
are set to zero, and not if they are set to their mean: they act as fixed biases.  Here the last
block's gain is measured beside the loss.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
from torch import Tensor

from gainlens.activations.capturing import capture
from gainlens.interventions.baseline import Baseline
from gainlens.interventions.last_block import changes, measure_last
from gainlens.interventions.replacements import Rows, prompt_key
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.massive import MassiveEntry, massive_entries
from gainlens.models.config import rope_from_config
from gainlens.models.hooks import scoped, writing
from gainlens.models.loaded import AnyModel
from gainlens.models.sites import sites_of
from gainlens.records.gains import Decomposition
from gainlens.records.inputs import EncodedPrompts
from gainlens.records.interventions import ControlEffect

MassiveHow = Literal["mean", "zero"]
_HOWS: tuple[MassiveHow, ...] = ("mean", "zero")


def massive_effects(baseline: Baseline) -> tuple[ControlEffect, ...]:
    """Set massive activations to their mean, then to zero, and measure both.

    Args:
        baseline: from `baseline_of`.

    A mean is over the prompts and the notebook's sentence, one per block and dimension, of position
    0 and of other tokens apart.  If no token is massive, `change` is None and the note says so.
    """
    entries = massive_entries(baseline.decomposition, baseline.rule.massive_ratio)
    if not entries:
        note = "no token is massive on these prompts"
        return tuple(ControlEffect(f"massive to {how}", note, None) for how in _HOWS)
    tokens = {(entry.prompt, entry.position) for entry in entries}
    note = f"{len(entries)} activations on {len(tokens)} tokens"
    before = measure_last(baseline)
    effects: list[ControlEffect] = []
    for how in _HOWS:
        with massive_set(baseline, how):
            after = measure_last(baseline)
        (change,) = changes(before, [after], baseline.rule, baseline.dtype)
        effects.append(ControlEffect(f"massive to {how}", note, change))
    return tuple(effects)


@contextmanager
def massive_set(baseline: Baseline, how: MassiveHow) -> Generator[None]:
    """Set every massive activation to its mean, or to zero, where it first appears.

    Holds for the baseline's prompts and the notebook's sentence; other prompts are not changed.
    """
    with entries_set(baseline.model, targets_of(_keyed_entries(baseline), how)):
        yield


Targets = Sequence[tuple[bytes, MassiveEntry, float]]
"""The key of a prompt, one activation of it, and what it is set to."""


def targets_of(keyed: Sequence[tuple[bytes, MassiveEntry]], how: MassiveHow) -> Targets:
    """Return what each activation is set to: 0, or the mean of those of its block and dimension.

    The mean is of position 0 and of other positions apart.
    """
    values: dict[tuple[int, int, bool], list[float]] = {}
    for _, entry in keyed:
        values.setdefault(_group(entry), []).append(entry.value)
    means = {group: float(np.mean(of_group)) for group, of_group in values.items()}
    return [(key, entry, means[_group(entry)] if how == "mean" else 0.0) for key, entry in keyed]


@contextmanager
def entries_set(model: AnyModel, targets: Targets) -> Generator[None]:
    """Set single activations of single prompts at the output of their block."""
    rows = Rows(None)
    settings: dict[int, dict[bytes, list[tuple[int, int, float]]]] = {}
    for key, entry, value in targets:
        of_block = settings.setdefault(entry.block, {})
        of_block.setdefault(key, []).append((entry.position, entry.dim, value))

    def write(block: int, tensor: Tensor) -> Tensor:
        new = tensor.clone()
        for row, key in enumerate(rows.keys(tensor)):
            for position, dim, value in settings[block].get(key, ()):
                new[row, position, dim] = value
        return new

    sites = sites_of(model)
    writers = [
        (sites.site(f"blocks.{block}.hook_resid_post"), partial(write, block)) for block in settings
    ]
    see = partial(sites.embedding.register_forward_pre_hook, rows.see, with_kwargs=True)
    with scoped([see]), writing(writers):
        yield


def _keyed_entries(baseline: Baseline) -> list[tuple[bytes, MassiveEntry]]:
    """Return the massive activations of prompts and sentence, each with its prompt's key."""
    ratio = baseline.rule.massive_ratio
    sentence = decompose(capture(baseline.model, baseline.sentence), massive_ratio=ratio)

    def keyed(
        prompts: EncodedPrompts, decomposition: Decomposition
    ) -> list[tuple[bytes, MassiveEntry]]:
        return [
            (prompt_key(prompts.tokens[entry.prompt]), entry)
            for entry in massive_entries(decomposition, ratio)
        ]

    return keyed(baseline.prompts, baseline.decomposition) + keyed(baseline.sentence, sentence)


def _group(entry: MassiveEntry) -> tuple[int, int, bool]:
    """Return what entries with a common mean have in common."""
    return entry.block, entry.dim, entry.position == 0


def bos_effects(baseline: Baseline) -> tuple[ControlEffect, ...]:
    """Drop BOS from every prompt, then double it, and measure both on the same text.

    Args:
        baseline: from `baseline_of`.

    Each variant is judged on its own token classes, because another token is at position 0.  The
    loss is over the text's tokens but the first, which cannot be predicted without BOS.  If a
    prompt fills the model's context, its last token is left out everywhere to make room.
    """
    if not baseline.prompts.bos:
        note = "the tokenizer prepends no BOS"
        return tuple(ControlEffect(name, note, None) for name in ("BOS dropped", "BOS doubled"))
    room = rope_from_config(baseline.config).max_position
    if room is not None and max(map(len, baseline.prompts.tokens)) >= room:
        baseline = _retokenised(baseline, lambda tokens: tokens[: room - 1])
    before = measure_last(baseline, skip=1)
    effects: list[ControlEffect] = []
    for name, change_tokens, skip in (
        ("BOS dropped", _without_first, 0),
        ("BOS doubled", _with_first_twice, 2),
    ):
        after = measure_last(_retokenised(baseline, change_tokens), skip=skip)
        (change,) = changes(before, [after], baseline.rule, baseline.dtype)
        effects.append(ControlEffect(name, f"on {len(baseline.prompts.tokens)} prompts", change))
    return tuple(effects)


def _without_first(tokens: np.ndarray) -> np.ndarray:
    return tokens[1:]


def _with_first_twice(tokens: np.ndarray) -> np.ndarray:
    return np.concatenate([tokens[:1], tokens])


def _retokenised(baseline: Baseline, change: Callable[[np.ndarray], np.ndarray]) -> Baseline:
    """Return the same model on changed token ids, with the token classes that they have."""

    def changed(prompts: EncodedPrompts) -> EncodedPrompts:
        tokens = tuple(change(tokens) for tokens in prompts.tokens)
        grown = len(tokens[0]) - len(prompts.tokens[0])
        prefix = 1 if prompts.prefix == 1 else prompts.prefix + grown
        return replace(prompts, tokens=tokens, prefix=prefix)

    prompts = changed(baseline.prompts)
    return replace(
        baseline,
        prompts=prompts,
        sentence=changed(baseline.sentence),
        decomposition=decompose(
            capture(baseline.model, prompts), massive_ratio=baseline.rule.massive_ratio
        ),
    )
