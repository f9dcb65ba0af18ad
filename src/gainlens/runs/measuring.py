"""Measure one model: load it, capture it on its prompts, decompose, grade, and intervene."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from gainlens.activations.capturing import capture
from gainlens.activations.scale_control import scale_control
from gainlens.claims.behaviour import is_equivalent
from gainlens.claims.blocks import block_gains
from gainlens.claims.cells import grade_cells, primary_cell
from gainlens.claims.intervals import halves_interval
from gainlens.claims.resolving import last_block_parts
from gainlens.core.spec import ComparisonSpec
from gainlens.interventions.addresses import check_sites
from gainlens.interventions.plan import interventions_of
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.massive import massive_lifecycle
from gainlens.metrics.reductions import reduce_gains
from gainlens.models.config import sizes_of
from gainlens.models.loading import load
from gainlens.notebook.statistics import notebook_residual
from gainlens.records.capture import Capture
from gainlens.records.comparison import ModelReport
from gainlens.records.gains import Decomposition
from gainlens.runs.environment import set_threads
from gainlens.runs.inputs import ModelInputs
from gainlens.runs.measured import Measured
from gainlens.weights.of_model import unembed_report, unembedding
from gainlens.weights.rope import check_theta, rope_report
from gainlens.weights.unembed import subspaces, unembed_gram


def measure_model(
    spec: ComparisonSpec,
    inputs: ModelInputs,
    thetas: Sequence[float] = (),
    progress: Callable[[int], None] | None = None,
) -> Measured:
    """Measure one model of a comparison.

    Args:
        spec: the whole comparison.
        inputs: the model's own, from `open_inputs`.
        thetas: RoPE bases to measure the weights under again, from `thetas_to_swap`.
        progress: called with the number of prompts done since the last call.

    Raises ValueError if the model cannot be loaded or measured.
    """
    progress = progress or _ignore
    set_threads(sizes_of(inputs.opened.config).d_model, inputs.longest_prompt)
    loaded = load(
        inputs.opened,
        name=inputs.model.key,
        backend=spec.backend,
        dtype=spec.dtype,
        device=spec.device,
        longest_prompt=inputs.longest_prompt,
    )
    check_sites(loaded.model, spec.ablate)
    head = unembedding(loaded)
    spectrum = unembed_gram(head.weight)
    rule, prompts = spec.rule, inputs.prompts
    captured = capture(
        loaded.model,
        prompts,
        subspaces=subspaces(spectrum),
        patterns=True,
        batch_tokens=spec.batch_tokens,
        progress=progress,
    )
    texts = token_texts(loaded.tokenizer, captured)
    captured = replace(captured, token_text=texts)
    decomposition = decompose(captured, split=rule.split, massive_ratio=rule.massive_ratio)
    rope = rope_report(loaded.model, loaded.checkpoint.config)
    check_theta(rope)
    gains = reduce_gains(decomposition, rule.token_class, rule.reduction)
    cells = grade_cells(decomposition, rule, loaded.checkpoint.dtype)
    primary = primary_cell(cells, rule)
    sentence = torch.from_numpy(inputs.sentence.tokens[0])[None]
    report = ModelReport(
        role=inputs.model.role,
        checkpoint=loaded.checkpoint,
        residual=notebook_residual(capture(loaded.model, inputs.sentence)),
        unembed=unembed_report(spectrum, head.norm_scale, tied=head.tied, mean_off=head.mean_off),
        rope=rope,
        blocks=block_gains(gains, rule),
        cells=cells,
        last_block=gains.log_gain[-1],
        parts=last_block_parts(decomposition, gains, rule),
        behaviour=primary.behaviour,
        equivalent=is_equivalent(primary.log_gain, rule),
        visible_share=visible_share(decomposition),
        massive=massive_lifecycle(decomposition, texts, rule.massive_ratio),
        prompts=prompts,
        scale_control=scale_control(loaded.model, sentence, head.weight),
        halves_control=halves_interval(
            gains.log_gain[-1],
            confidence=rule.confidence,
            resamples=rule.resamples,
            seed=rule.seed,
        ),
        interventions=interventions_of(
            spec, thetas, loaded, prompts, inputs.sentence, decomposition, progress
        ),
    )
    return Measured(report, decomposition)


def _ignore(prompts: int) -> None:
    """Take a number of finished prompts and do nothing."""


def token_texts(tokenizer: Any, captured: Capture) -> tuple[str, ...]:
    """Return every captured token's text, decoded alone."""
    ids = captured.token_id.tolist()
    text = {token: tokenizer.decode([token]) for token in set(ids)}
    return tuple(text[token] for token in ids)


def visible_share(decomposition: Decomposition) -> tuple[float, float]:
    """Return the mean share of attention's and the MLP's last write that W_U sees.

    The mean is over each prompt's ordinary tokens, then over prompts; NaN for a component that
    writes nothing.
    """
    visible = decomposition.capture.visible
    assert visible is not None, "captured with subspaces"
    return _over_prompts(decomposition, visible[0]), _over_prompts(decomposition, visible[1])


def _over_prompts(decomposition: Decomposition, values: np.ndarray) -> float:
    chosen = decomposition.is_ordinary & np.isfinite(values)
    _, owner = np.unique(decomposition.prompt[chosen], return_inverse=True)
    if not len(owner):
        return float("nan")
    return float((np.bincount(owner, values[chosen]) / np.bincount(owner)).mean())
