"""Measure one model or many without a claim: `gainlens.measure`."""

import datetime
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from gainlens.activations.recorder import Extra
from gainlens.core.names import key_of
from gainlens.core.presets import TWIN_PREFIX
from gainlens.core.spec import MeasureSpec, RunSpec
from gainlens.metrics.registry import metric_named
from gainlens.models.config import context_of, sizes_of
from gainlens.models.encoding import Prompts, encode_for
from gainlens.models.loaded import LoadedModel
from gainlens.models.loading import load
from gainlens.models.opening import OpenedModel, open_model
from gainlens.models.wrapping import wrap
from gainlens.prompts.encoding import encode
from gainlens.prompts.texts import PromptSet, load_prompts
from gainlens.records.inputs import EncodedPrompts
from gainlens.runs.environment import environment, set_threads
from gainlens.runs.measured import Measured
from gainlens.runs.measurement import Measurement
from gainlens.runs.measuring_alone import measure_alone, weights_of
from gainlens.runs.passes import with_passes
from gainlens.runs.series import in_order

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
        weights = weights_of(loaded)
        for encoded in _encoded(loaded, texts, lengths, smallest, spec):
            label = names[-1] if len(lengths) < 2 else f"{names[-1]}@{len(encoded.tokens[0])}"
            done = measure_alone(loaded, weights, label, encoded, spec, heads, extra, progress)
            done = replace(done, reopen=reopen)
            for name in spec.metric if isinstance(spec, MeasureSpec) else ():
                done = with_passes(done, metric_named(name), spec, loaded, progress)
            measured.append(done)
            if then is not None:
                then(done, loaded)
        del loaded
    axis, positions = None, ()
    if series:
        axis, measured, positions = "step", *in_order(measured, given)
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
