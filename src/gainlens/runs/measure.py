"""Measure one model or many without a claim: `gainlens.measure`."""

import datetime
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from gainlens.activations.capturing import capture
from gainlens.activations.recorder import Extra
from gainlens.activations.scale_control import scale_control
from gainlens.claims.blocks import block_gains
from gainlens.claims.intervals import halves_interval
from gainlens.core.names import key_of
from gainlens.core.presets import TWIN_PREFIX
from gainlens.core.spec import MeasureSpec, RunSpec
from gainlens.interventions.plan import interventions_of
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.massive import massive_lifecycle
from gainlens.metrics.reductions import reduce_gains
from gainlens.metrics.registry import metric_named
from gainlens.models.config import context_of, sizes_of
from gainlens.models.encoding import Prompts, encode_for
from gainlens.models.loaded import LoadedModel
from gainlens.models.loading import load
from gainlens.models.opening import OpenedModel, open_model
from gainlens.models.wrapping import wrap
from gainlens.notebook.statistics import notebook_residual
from gainlens.prompts.encoding import encode
from gainlens.prompts.texts import PromptSet, load_prompts
from gainlens.records.capture import Capture
from gainlens.records.comparison import ModelReport, NotebookResidual
from gainlens.records.inputs import EncodedPrompts
from gainlens.records.weights import UnembedReport
from gainlens.runs.environment import environment, set_threads
from gainlens.runs.measurement import Measurement, step_of, with_passes
from gainlens.runs.measuring import Measured, token_texts
from gainlens.weights.of_model import unembed_report, unembedding
from gainlens.weights.rope import check_theta, rope_report
from gainlens.weights.unembed import subspaces, unembed_gram

Source = str | Path | nn.Module | LoadedModel
"""A hub name (also NAME@REVISION), a directory, or a model in memory."""


def measure(
    models: Source | Sequence[Source],
    prompts: Prompts | None = None,
    *,
    tokens: int | Sequence[int] = (),
    series: bool = False,
    heads: bool | None = None,
    extra: Extra | None = None,
    spec: RunSpec | None = None,
    progress: Callable[[int], None] | None = None,
    then: Callable[[Measured, LoadedModel], None] | None = None,
) -> Measurement:
    """Measure one model or many on the same prompts, without a claim.

    Args:
        models: from `load` or `wrap`, a bare model, a hub name (also NAME@REVISION), a directory;
            or several of these.  Names and directories are loaded one at a time.
        prompts: a text, a list of texts, a set from `load_prompts`, token ids [batch, position] or
            encoded prompts; None: the built-in set `mixed`, or the set that `spec` names.
        tokens: prompt lengths in tokens; several give a curve over lengths.
        series: the models are checkpoints along training; they are put in the order of their steps.
        heads: measure every attention head; None: if the model shows its heads.
        extra: further columns by name, as for `capture`; `tokens`, metrics and the run folder have
            them.
        spec: back end, dtype, device, rule and interventions; the defaults if None.
        progress: called with the number of prompts done since the last call.
        then: called with each measurement as soon as it is made, while its model is loaded.

    A metric that needs passes of its own (loss, skip_loss) is measured here if `spec.metric` names
    it, else when `Measurement.metric` asks for it.  Raises ValueError if a model cannot be loaded
    or measured, and if a series has no order.

    Examples:
        >>> m = gainlens.measure(loaded, ["x = 1", "Hello, world."])
        >>> list(m.blocks.columns)[:4]
        ['model', 'block', 'log_gain', 'attention']
        >>> m.metric("angle").dims
        ('model', 'block', 'prompt')
    """
    started = time.perf_counter()
    spec = spec or MeasureSpec(name="measurement", models=())
    texts = load_prompts(spec.prompts) if prompts is None else prompts
    sources: list[Any] = list(models) if isinstance(models, list | tuple) else [models]
    if not sources:
        raise ValueError("there is no model to measure: give at least one")
    opened = [_opened(source, spec) for source in sources]
    lengths = tuple([tokens] if isinstance(tokens, int) else tokens)
    smallest = min((_context(one) for one in opened), default=None)
    longest = max(lengths, default=0)
    measured: list[Measured] = []
    given: list[str] = []
    names: list[str] = []
    for source, one in zip(sources, opened, strict=True):
        loaded = _loaded(one, spec, longest)
        reopen = partial(_loaded, one, spec, longest)
        given.append(_name(source, loaded))
        names.append(key_of(given[-1], names))
        weights = _weights_of(loaded)
        for encoded in _encoded(loaded, texts, lengths, smallest, spec):
            label = names[-1] if len(lengths) < 2 else f"{names[-1]}@{len(encoded.tokens[0])}"
            done = _measure(loaded, weights, label, encoded, spec, heads, extra, progress)
            done = replace(done, reopen=reopen)
            for name in spec.metric if isinstance(spec, MeasureSpec) else ():
                done = with_passes(done, metric_named(name), spec, loaded, progress)
            measured.append(done)
            if then is not None:
                then(done, loaded)
        del loaded
    axis, positions = None, ()
    if series:
        axis, measured, positions = "step", *_in_order(measured, given)
    elif len(lengths) > 1:
        axis, positions = "tokens", tuple(float(length) for _ in names for length in lengths)
    return Measurement(
        measured=tuple(measured),
        spec=spec,
        axis=axis,
        positions=positions,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        seconds=time.perf_counter() - started,
        environment=environment(),
    )


def _opened(source: Any, spec: RunSpec) -> OpenedModel | LoadedModel:
    if isinstance(source, LoadedModel):
        return source
    if isinstance(source, nn.Module):
        return wrap(source)
    name, _, revision = str(source).partition("@")
    if Path(str(source)).is_dir():
        name, revision = str(source), ""
    return open_model(
        name, revision=revision or spec.revision, trust_remote_code=spec.trust_remote_code
    )


def _context(model: OpenedModel | LoadedModel) -> int:
    if isinstance(model, LoadedModel):
        return model.checkpoint.context
    context = context_of(model.config)
    assert context is not None, "open_model refuses a config without one"
    return context


def _loaded(model: OpenedModel | LoadedModel, spec: RunSpec, longest_prompt: int) -> LoadedModel:
    if isinstance(model, LoadedModel):
        return model
    set_threads(sizes_of(model.config).d_model, longest_prompt)
    return load(
        model,
        backend=spec.backend,
        dtype=spec.dtype,
        device=spec.device,
        longest_prompt=longest_prompt,
    )


def _name(source: Any, loaded: LoadedModel) -> str:
    if isinstance(source, nn.Module | LoadedModel):
        return loaded.checkpoint.name
    return str(source).removeprefix(TWIN_PREFIX)


def _encoded(
    loaded: LoadedModel,
    prompts: Prompts,
    lengths: Sequence[int],
    smallest: int | None,
    spec: RunSpec,
) -> list[EncodedPrompts]:
    """Return the prompts as token ids of one model, once per length."""

    def at(tokens: int | None) -> EncodedPrompts:
        if not isinstance(prompts, PromptSet) or loaded.tokenizer is None:
            return encode_for(loaded, prompts, tokens=tokens)
        return encode(
            prompts,
            loaded.tokenizer,
            context=smallest if prompts.built_in else loaded.checkpoint.context,
            tokens=tokens,
            allow_extrapolation=spec.allow_extrapolation,
            vocab_size=loaded.checkpoint.d_vocab,
        )

    return [at(length) for length in lengths or (None,)]


class _Weights(NamedTuple):
    """Hold what is read of a model's W_U, once for all prompt lengths."""

    matrix: Tensor | None
    """[d_vocab, d_model]; None if TransformerLens processed the weights"""
    bases: tuple[Tensor, Tensor] | None
    """of what W_U sees and of what it hardly sees"""
    report: UnembedReport


def _weights_of(loaded: LoadedModel) -> _Weights:
    if loaded.checkpoint.processed:
        return _Weights(None, None, _UNKNOWN_UNEMBED)
    head = unembedding(loaded)
    gram = unembed_gram(head.weight)
    report = unembed_report(gram, head.norm_scale, tied=head.tied, mean_off=head.mean_off)
    return _Weights(head.weight, subspaces(gram), report)


def _measure(
    loaded: LoadedModel,
    weights: _Weights,
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


def _in_order(
    measured: Sequence[Measured], names: Sequence[str]
) -> tuple[list[Measured], tuple[float, ...]]:
    """Return the checkpoints of a series in the order of their steps, with the steps."""
    steps = [
        step_of(name, one.report.checkpoint.training)
        for name, one in zip(names, measured, strict=True)
    ]
    missing = [name for name, step in zip(names, steps, strict=True) if step is None]
    if missing:
        raise ValueError(
            f"the step of {missing[0]} is not known, so the series has no order: give names that "
            "end in a step, such as step1000, or a training.json that says it"
        )
    known = cast("list[float]", steps)
    order = np.argsort(known, kind="stable")
    ordered = [known[place] for place in order]
    if any(before == after for before, after in pairwise(ordered)):
        raise ValueError(f"two checkpoints of the series have one step: {', '.join(names)}")
    return [measured[place] for place in order], tuple(ordered)


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
