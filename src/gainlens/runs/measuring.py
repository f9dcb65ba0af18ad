"""TODO: runs.measuring."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from gainlens.activations.capturing import capture
from gainlens.activations.scale_control import scale_control
from gainlens.claims.cells import block_gains, grade_cells, is_equivalent, primary_cell
from gainlens.claims.intervals import halves_interval
from gainlens.core.spec import ComparisonSpec, ModelSpec
from gainlens.interventions.ablation import check_sites
from gainlens.interventions.plan import interventions_of
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.massive import massive_lifecycle
from gainlens.metrics.reductions import reduce_gains
from gainlens.models.backends import choose_backend
from gainlens.models.hub import read_config
from gainlens.models.loading import LoadedModel, encode_for, load
from gainlens.models.placement import place
from gainlens.models.sizes import is_small
from gainlens.models.sources import resolve
from gainlens.notebook.statistics import notebook_residual
from gainlens.prompts.texts import load_prompts
from gainlens.records.capture import Capture
from gainlens.records.comparison import ModelReport
from gainlens.records.gains import Decomposition
from gainlens.records.inputs import EncodedPrompts
from gainlens.runs.environment import THREADS
from gainlens.runs.progress import Silent, Watch
from gainlens.weights.of_model import unembed_report, unembedding
from gainlens.weights.rope import check_theta, rope_report
from gainlens.weights.unembed import subspaces, unembed_gram


@dataclass(frozen=True)
class Measured:
    """One model's report with the numbers behind it."""

    report: ModelReport
    decomposition: Decomposition


def measure(
    spec: ComparisonSpec, model: ModelSpec, prompts: EncodedPrompts, watch: Watch | None = None
) -> Measured:
    """Load one model, capture it on the prompts, decompose, and intervene."""
    watch = watch or Silent()
    _set_threads(spec, model, prompts)
    loaded = load(
        model.hf_name,
        name=model.key,
        backend=_backend(spec, model, prompts),
        dtype=spec.dtype,
        device=spec.device,
        revision=spec.revision,
        trust_remote_code=spec.trust_remote_code,
    )
    check_sites(loaded.model, spec.ablate)
    head = unembedding(loaded)
    spectrum = unembed_gram(head.weight)
    captured = capture(
        loaded.model,
        prompts,
        subspaces=subspaces(spectrum),
        patterns=True,
        progress=watch.advance,
    )
    texts = _token_texts(loaded, captured)
    captured = replace(captured, token_text=texts)
    decomposition = decompose(
        captured, split=spec.rule.split, massive_ratio=spec.rule.massive_ratio
    )
    rope = rope_report(loaded.model, loaded.checkpoint.config)
    check_theta(rope)
    rule = spec.rule
    gains = reduce_gains(decomposition, rule.token_class, rule.reduction)
    cells = grade_cells(decomposition, rule, loaded.checkpoint.dtype)
    primary = primary_cell(cells, rule)
    report = ModelReport(
        role=model.role,
        checkpoint=loaded.checkpoint,
        residual=notebook_residual(
            capture(loaded.model, encode_for(loaded, load_prompts("notebook")))
        ),
        unembed=unembed_report(spectrum, head.norm_scale, tied=head.tied, mean_off=head.mean_off),
        rope=rope,
        blocks=block_gains(gains, rule),
        cells=cells,
        last_block=gains.log_gain[-1],
        behaviour=primary.behaviour,
        equivalent=is_equivalent(primary.log_gain, rule),
        visible_share=_visible_share(decomposition),
        massive=massive_lifecycle(decomposition, texts, rule.massive_ratio),
        prompts=prompts,
        scale_control=scale_control(loaded.model, _check_tokens(loaded), head.weight),
        halves_control=halves_interval(
            gains.log_gain[-1],
            confidence=rule.confidence,
            resamples=rule.resamples,
            seed=rule.seed,
        ),
        interventions=interventions_of(
            spec, loaded, prompts, captured, decomposition, watch.advance
        ),
    )
    return Measured(report, decomposition)


def _visible_share(decomposition: Decomposition) -> tuple[float, float]:
    """Mean over ordinary tokens of what W_U sees of attention's and the MLP's last write.

    NaN for a component that writes nothing.
    """
    visible = decomposition.capture.visible
    assert visible is not None, "captured with subspaces"
    shares = visible[:, decomposition.is_ordinary]
    attention, mlp = (row[np.isfinite(row)] for row in shares)
    return _mean_or_nan(attention), _mean_or_nan(mlp)


def _mean_or_nan(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _backend(spec: ComparisonSpec, model: ModelSpec, prompts: EncodedPrompts) -> str:
    if spec.backend != "auto":
        return spec.backend
    config = read_config(resolve(model.hf_name), spec.revision, spec.trust_remote_code)
    if place(config, spec.dtype, spec.device).spread:
        return "native"
    return choose_backend(config, max(len(tokens) for tokens in prompts.tokens))


def _set_threads(spec: ComparisonSpec, model: ModelSpec, prompts: EncodedPrompts) -> None:
    """Before a model is touched: sums over threads differ in their last bits."""
    config = read_config(resolve(model.hf_name), spec.revision, spec.trust_remote_code)
    small = is_small(config.hidden_size, max(len(tokens) for tokens in prompts.tokens))
    torch.set_num_threads(1 if small else THREADS)


def _check_tokens(loaded: LoadedModel) -> torch.Tensor:
    return torch.from_numpy(encode_for(loaded, load_prompts("notebook")).tokens[0])[None]


def _token_texts(loaded: LoadedModel, captured: Capture) -> tuple[str, ...]:
    """Every token's text, for the reader."""
    ids = captured.token_id.tolist()
    text = {token: loaded.tokenizer.decode([token]) for token in set(ids)}
    return tuple(text[token] for token in ids)
