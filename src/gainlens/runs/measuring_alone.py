"""Measure one model on one set of prompts, without a claim."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gainlens.activations.capturing import capture
from gainlens.activations.recorder import Extra
from gainlens.activations.scale_control import scale_control
from gainlens.claims.blocks import block_gains
from gainlens.claims.intervals import halves_interval
from gainlens.core.spec import RunSpec
from gainlens.interventions.plan import interventions_of
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.massive import massive_lifecycle
from gainlens.metrics.reductions import reduce_gains
from gainlens.models.encoding import encode_for
from gainlens.models.loaded import LoadedModel
from gainlens.notebook.statistics import notebook_residual
from gainlens.prompts.texts import load_prompts
from gainlens.records.capture import Capture
from gainlens.records.comparison import ModelReport, NotebookResidual
from gainlens.records.inputs import EncodedPrompts
from gainlens.records.weights import UnembedReport
from gainlens.runs.measured import Measured
from gainlens.runs.measuring import token_texts
from gainlens.weights.of_model import unembed_report, unembedding
from gainlens.weights.rope import check_theta, rope_report
from gainlens.weights.unembed import subspaces, unembed_gram


class Weights(NamedTuple):
    """Hold what is read of a model's W_U, once for all prompt lengths."""

    matrix: Tensor | None
    """[d_vocab, d_model]; None if TransformerLens processed the weights"""
    bases: tuple[Tensor, Tensor] | None
    """of what W_U sees and of what it hardly sees"""
    report: UnembedReport


def weights_of(loaded: LoadedModel) -> Weights:
    """Return W_U with its spectrum and subspaces, read once for all prompt lengths."""
    if loaded.checkpoint.processed:
        return Weights(None, None, _UNKNOWN_UNEMBED)
    head = unembedding(loaded)
    gram = unembed_gram(head.weight)
    report = unembed_report(gram, head.norm_scale, tied=head.tied, mean_off=head.mean_off)
    return Weights(head.weight, subspaces(gram), report)


def measure_alone(
    loaded: LoadedModel,
    weights: Weights,
    name: str,
    prompts: EncodedPrompts,
    spec: RunSpec,
    heads: bool | None,
    extra: Extra | None,
    progress: Callable[[int], None] | None,
) -> Measured:
    """Measure one model on one set of prompts."""
    rule = spec.rule

    def run(with_heads: bool) -> Capture:
        return capture(
            loaded,
            prompts,
            subspaces=weights.bases,
            patterns=True,
            heads=with_heads,
            extra=extra,
            batch_tokens=spec.batch_tokens,
            progress=progress,
        )

    captured = _with_heads(run, heads)
    texts = _texts(loaded, captured)
    captured = replace(captured, token_text=texts)
    decomposition = decompose(captured, split=rule.split, massive_ratio=rule.massive_ratio)
    rope = rope_report(loaded.model, loaded.checkpoint.config)
    check_theta(rope)
    gains = reduce_gains(decomposition, rule.token_class, rule.reduction)
    sentence = None if loaded.tokenizer is None else encode_for(loaded, load_prompts("notebook"))
    first = torch.from_numpy(prompts.tokens[0])[None]
    report = ModelReport(
        role="model",
        checkpoint=replace(loaded.checkpoint, name=name),
        residual=_UNKNOWN_RESIDUAL
        if sentence is None
        else notebook_residual(capture(loaded, sentence)),
        unembed=weights.report,
        rope=rope,
        blocks=block_gains(gains, rule),
        cells=(),
        last_block=gains.log_gain[-1],
        behaviour=None,
        equivalent=None,
        massive=massive_lifecycle(decomposition, texts, rule.massive_ratio),
        prompts=prompts,
        scale_control=np.nan
        if weights.matrix is None
        else scale_control(loaded.model, first, weights.matrix),
        halves_control=halves_interval(
            gains.log_gain[-1],
            confidence=rule.confidence,
            resamples=rule.resamples,
            seed=rule.seed,
        ),
        interventions=interventions_of(
            spec,
            spec.theta or (),
            loaded,
            prompts,
            sentence or prompts,
            decomposition,
            progress or _ignore,
        ),
    )
    return Measured(report, decomposition)


def _ignore(prompts: int) -> None:
    """Take a number of finished prompts and do nothing."""


def _with_heads(run: Callable[[bool], Capture], heads: bool | None) -> Capture:
    """Capture with heads if they were asked for, or if the model shows them and nobody asked."""
    if heads is not None:
        return run(heads)
    try:
        return run(True)
    except (ValueError, RuntimeError):  # this model does not show its heads
        return run(False)


def _texts(loaded: LoadedModel, captured: Capture) -> tuple[str, ...]:
    if loaded.tokenizer is None:
        return tuple(f"<{token}>" for token in captured.token_id.tolist())
    return token_texts(loaded.tokenizer, captured)


_NAN = float("nan")
_UNKNOWN_RESIDUAL = NotebookResidual(
    norms=(), gains=(), embedding_norm=_NAN, final_norm=_NAN, initial_gain=_NAN, last_gain=_NAN,
    last_expands=False, cumulative_energy=_NAN, num_layers=0, contracting_layers=0,
    expanding_layers=0, true_last_gain=_NAN, final_norm_gain=_NAN,
)  # fmt: skip
"""Of a model without a tokenizer: the notebook's sentence cannot be encoded."""
_UNKNOWN_UNEMBED = UnembedReport(
    shape=(0, 0), vocab_size=0, hidden_dim=0, frobenius_norm=_NAN, spectral_norm=_NAN,
    mean_row_norm=_NAN, sigma_per_sqrt_vocab=_NAN, edge_ratio=_NAN, stable_rank=_NAN,
    effective_rank=_NAN, mean_row_cosine=_NAN, spectrum=np.empty(0),
    centred_spectrum=np.empty(0), folded_spectrum=np.empty(0), subspace_rank=0, tied=False,
)  # fmt: skip
"""Of a model whose weights TransformerLens processed: its W_U is not the checkpoint's."""
