"""Turn a claim's intervention into contexts: one that intervenes, and random controls beside it.

A control changes as many dimensions, blocks, attended positions or factors as the intervention,
drawn at random.  Every draw follows from a seed.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from gainlens.activations.batches import Batch, batches
from gainlens.claims.intervention import Intervention
from gainlens.core.spec import Rule
from gainlens.interventions.ablation import ablate
from gainlens.interventions.equal_gain import equalising, rescaled
from gainlens.interventions.masking import (
    attention_masked,
    check_masking,
    first_position,
    random_position,
)
from gainlens.interventions.replacements import prompt_key
from gainlens.interventions.rope_override import checked_theta, rope_frequencies
from gainlens.interventions.tokens import Targets, entries_set, targets_of
from gainlens.metrics.massive import MassiveEntry, massive_entries
from gainlens.models.config import rope_from_config
from gainlens.models.hooks import reading
from gainlens.models.sites import sites_of
from gainlens.records.gains import Decomposition
from gainlens.records.inputs import EncodedPrompts
from gainlens.weights.rope import inverse_frequencies

Arm = Callable[[], AbstractContextManager[None]]
"""Opens a context in which the model is changed."""
_SAME: Final = 1e-4
"""An activation within this share of what it is set to is not changed."""
_COMPONENT_SITES: Final = {
    "attention": ("hook_attn_out",), "mlp": ("hook_mlp_out",),
    "block": ("hook_attn_out", "hook_mlp_out"),
}  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """Hold a model as it is on its prompts, for an intervention to change."""

    model: Any
    config: Any
    """the Hugging Face config as a plain dictionary"""
    prompts: EncodedPrompts
    decomposition: Decomposition
    rule: Rule
    batch_tokens: int | None = None


@dataclass(frozen=True)
class Plan:
    """Hold an intervention and the draws of its control, ready to be opened."""

    treated: Arm
    controls: tuple[Arm, ...]
    acts: Bool[np.ndarray, " prompt"]
    """False for prompts on which the intervention changes nothing"""
    population: int | None = None
    """of how many possible controls these are, each at most once; None: without end"""


def plan_of(wanted: Intervention, subject: Subject) -> Plan:
    """Return the contexts of an intervention and of its control.

    Raises ValueError, in one sentence, if this model cannot be changed so, if nothing would change,
    or if no control can be drawn.
    """
    make = {
        "leave out": _leave_out,
        "set massive": _set_massive,
        "mask sink": _mask_sink,
        "equal gain": _equal_gain,
        "swap theta": _swap_theta,
    }[wanted.kind]
    return make(wanted, subject)


def _everywhere(subject: Subject) -> np.ndarray:
    return np.ones(len(subject.prompts.tokens), dtype=bool)


def _leave_out(wanted: Intervention, subject: Subject) -> Plan:
    count = sites_of(subject.model).num_blocks
    named = {"first": 0, "last": count - 1}
    place = named[wanted.block] if isinstance(wanted.block, str) else int(wanted.block or 0)
    if not -count <= place < count:
        raise ValueError(f"a model of {count} blocks has no block {place}")
    others = [block for block in range(count) if block != place % count]
    if not others:
        raise ValueError("this model has one block, so there is no other block as a control")
    how = wanted.to or "zero"

    def without(block: int) -> Arm:
        sites = {f"blocks.{block}.{site}": how for site in _COMPONENT_SITES[str(wanted.component)]}
        return partial(ablate, subject.model, sites, reference=subject.prompts)

    drawn = np.random.default_rng(subject.rule.seed).permutation(others)[: wanted.draws]
    controls = tuple(map(without, drawn.tolist()))
    return Plan(without(place % count), controls, _everywhere(subject), len(others))


def _set_massive(wanted: Intervention, subject: Subject) -> Plan:
    keys = [prompt_key(tokens) for tokens in subject.prompts.tokens]
    entries = massive_entries(subject.decomposition, subject.rule.massive_ratio)
    if not entries:
        raise ValueError("no token is massive on these prompts, so nothing is set")

    def set_to(chosen: Sequence[MassiveEntry]) -> Targets:
        return targets_of([(keys[entry.prompt], entry) for entry in chosen], wanted.to or "zero")

    targets = set_to(entries)
    acts = np.zeros(len(keys), dtype=bool)
    for _, entry, value in targets:
        acts[entry.prompt] |= abs(entry.value - value) > _SAME * abs(entry.value)
    if not acts.any():
        raise ValueError(
            "every massive activation on these prompts equals its mean (as at position 0 of the "
            "same first token), so setting it to its mean changes nothing by construction"
        )
    dims = sorted({entry.dim for entry in entries})
    free = np.setdiff1d(np.arange(sites_of(subject.model).d_model), dims)
    if len(free) < len(dims):
        raise ValueError("too few dimensions are not massive, so there is no control")
    streams = _streams_at(subject, entries) if wanted.to == "mean" else {}
    rng = np.random.default_rng(subject.rule.seed)

    def control() -> Arm:
        other = dict(zip(dims, rng.choice(free, len(dims), replace=False).tolist(), strict=True))

        def moved(entry: MassiveEntry) -> MassiveEntry:
            stream = streams.get((entry.block, entry.prompt, entry.position))
            dim = other[entry.dim]
            return replace(entry, dim=dim, value=0.0 if stream is None else float(stream[dim]))

        return partial(entries_set, subject.model, set_to([moved(entry) for entry in entries]))

    controls = tuple(control() for _ in range(wanted.draws))
    return Plan(partial(entries_set, subject.model, targets), controls, acts)


def _streams_at(
    subject: Subject, entries: Sequence[MassiveEntry]
) -> dict[tuple[int, int, int], Float64[np.ndarray, " d_model"]]:
    """Return what leaves the block of each entry at its token, by (block, prompt, position)."""
    sites = sites_of(subject.model)
    positions: dict[tuple[int, int], set[int]] = {}
    for entry in entries:
        positions.setdefault((entry.block, entry.prompt), set()).add(entry.position)
    found: dict[tuple[int, int, int], np.ndarray] = {}

    def read(block: int, batch: Batch, tensor: Tensor) -> None:
        for row, prompt in enumerate(batch.index):
            for position in positions.get((block, prompt), ()):
                stream = tensor[row, position].double().cpu().numpy()
                found[block, prompt, position] = stream

    blocks = {entry.block for entry in entries}
    for batch in batches(
        subject.model, subject.prompts, sites, subject.batch_tokens, all_of_them=True
    ):
        readers = [
            (sites.site(f"blocks.{block}.hook_resid_post"), partial(read, block, batch))
            for block in blocks
        ]
        with torch.no_grad(), reading(readers):
            sites.run(batch.tokens)
    return found


def _mask_sink(wanted: Intervention, subject: Subject) -> Plan:
    acts = np.array([len(tokens) > 1 for tokens in subject.prompts.tokens])
    if not acts.any():
        raise ValueError(
            "every prompt has one token, so no token attends position 0 from elsewhere"
        )
    check_masking(subject.model, subject.prompts.tokens[int(acts.argmax())])
    controls = tuple(
        partial(
            attention_masked, subject.model, partial(random_position, (subject.rule.seed, draw))
        )
        for draw in range(wanted.draws)
    )
    return Plan(partial(attention_masked, subject.model, first_position), controls, acts)


def _equal_gain(wanted: Intervention, subject: Subject) -> Plan:
    factors = equalising(
        subject.model, subject.prompts, subject.decomposition, subject.batch_tokens
    )
    orders = _orders(factors, wanted.draws, subject.rule.seed)
    if not orders:
        raise ValueError("the blocks of this model have one gain already, so there is no control")
    controls = tuple(partial(rescaled, subject.model, order.tolist()) for order in orders)
    treated = partial(rescaled, subject.model, factors.tolist())
    return Plan(treated, controls, _everywhere(subject))


def _swap_theta(wanted: Intervention, subject: Subject) -> Plan:
    theta, own = float(wanted.theta or 0), rope_from_config(subject.config).theta
    if own is None:
        raise ValueError("this model has no rotary position embedding, so it has no theta to swap")
    if own == theta:
        raise ValueError(f"theta of this model is {theta:,.0f} already, so nothing is swapped")
    treated = partial(checked_theta, subject.model, subject.config, theta)
    plain = inverse_frequencies(subject.model)
    with treated():
        swapped = inverse_frequencies(subject.model)
    assert plain is not None
    assert swapped is not None
    orders = _orders(swapped / plain, wanted.draws, subject.rule.seed)
    if not orders:
        raise ValueError("RoPE of this model has one frequency, so there is no control")
    with rope_frequencies(subject.model, orders[0]):  # refuses now what it cannot change later
        pass
    controls = tuple(partial(rope_frequencies, subject.model, order) for order in orders)
    return Plan(treated, controls, _everywhere(subject))


def _orders(values: np.ndarray, draws: int, seed: int) -> list[np.ndarray]:
    """Return the values in random orders that differ from their own; none if all are equal."""
    if np.ptp(values) == 0:
        return []
    rng = np.random.default_rng(seed)
    orders: list[np.ndarray] = []
    while len(orders) < draws:
        order = rng.permutation(values)
        if not np.array_equal(order, values):
            orders.append(order)
    return orders
