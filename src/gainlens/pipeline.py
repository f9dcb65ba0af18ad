"""The story on one screen: load -> capture -> decompose -> test -> report."""

import datetime
import gc
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from gainlens.ablation import check_sites
from gainlens.attribution import shipped_curves
from gainlens.capturing import capture
from gainlens.checkpoints import LoadedModel, load, takes_mean_off, unembedding
from gainlens.checks import scale_control
from gainlens.front_ends import choose_backend
from gainlens.gain import decompose, decompose_each, reduce_gains
from gainlens.gram import kernel_name
from gainlens.hub import read_config, read_tokenizer
from gainlens.lifecycle import massive_lifecycle
from gainlens.notebook import hypothesis_test, notebook_residual, side_of
from gainlens.placement import place
from gainlens.prompts import encode
from gainlens.records import (
    Capture,
    Comparison,
    Decomposition,
    EncodedPrompts,
    ModelReport,
)
from gainlens.rope import check_theta, rope_from_config, rope_report
from gainlens.sources import is_small, resolve
from gainlens.spec import ComparisonSpec, ModelSpec
from gainlens.standing import interventions_of, passes_of
from gainlens.stats import halves_interval
from gainlens.texts import Prompt, PromptSet, load_prompts
from gainlens.unembed import subspaces, unembed_gram, unembed_report
from gainlens.verdict import block_gains, grade_cells, is_equivalent, judge, primary_cell
from gainlens.world import decided

_THREADS = torch.get_num_threads()


@runtime_checkable
class Watch(Protocol):
    """Whoever wants to see progress."""

    def model(self, name: str, prompts: int) -> AbstractContextManager[Any]:
        """Entered while a model is loaded and measured; `prompts` is how many are to be run, each
        once for the capture and once for each intervention."""
        ...

    def advance(self, prompts: int) -> None:
        """So many prompts more are done."""
        ...


class _Silent:
    def model(self, name: str, prompts: int) -> AbstractContextManager[Any]:
        return nullcontext()

    def advance(self, prompts: int) -> None: ...


@dataclass(frozen=True)
class Measured:
    """One model's report with the numbers behind it."""

    report: ModelReport
    capture: Capture
    decomposition: Decomposition


@runtime_checkable
class Keep(Protocol):
    """Whoever keeps finished models: in memory, or in files (resume.Partials) for a comparison that
    is interrupted or larger than memory."""

    @property
    def captures(self) -> Mapping[str, Capture]:
        """Of every model that was taken or added, by key."""
        ...

    def take(self, model: ModelSpec, prompts: EncodedPrompts) -> ModelReport | None:
        """What was kept of a model."""
        ...

    def add(self, model: ModelSpec, prompts: EncodedPrompts, measured: Measured) -> ModelReport:
        """Keep one that was measured; gives its report as it was kept."""
        ...


class _InMemory:
    def __init__(self) -> None:
        self.captures: dict[str, Capture] = {}

    def take(self, model: ModelSpec, prompts: EncodedPrompts) -> ModelReport | None:
        return None

    def add(self, model: ModelSpec, prompts: EncodedPrompts, measured: Measured) -> ModelReport:
        self.captures[model.key] = measured.capture
        return measured.report


Elsewhere = Callable[[str], Measured | None]
"""What another process measured of a model, by its key; None where it is to be measured here."""


def _nowhere(key: str) -> Measured | None:
    return None


def compare(
    spec: ComparisonSpec,
    watch: Watch | None = None,
    keep: Keep | None = None,
    elsewhere: Elsewhere = _nowhere,
) -> Comparison:
    """Measure every model of a comparison on the same texts and judge.

    One model is in memory at a time.  Within `world.joined` the prompts are spread over processes;
    `keep` is the first one's, and what it had of a model from before is captured in that one alone.

    Args:
        spec: what to compare and how, fixed before the run.
        watch: told of every model and prompt that is done.
        keep: asked for every model before it is measured, and given it afterwards; without it all
            models' captures are in memory together.
        elsewhere: asked for every model that was not kept (beside.helpers).

    Raises ValueError with one sentence for whatever the user can mend.
    """
    started = time.perf_counter()
    watch, keep = watch or _Silent(), keep or _InMemory()
    encoded = encode_for_all(spec)
    reports: list[ModelReport] = []
    for model in spec.models:
        prompts = encoded[model.key]
        with watch.model(model.label or model.key, _prompts_to_run(spec, model, prompts)):
            reports.append(
                decided(keep.take(model, prompts))
                or keep.add(
                    model,
                    prompts,
                    elsewhere(model.key) or measure(spec, model, prompts, watch),
                )
            )
        gc.collect()
    rule = spec.rule
    return Comparison(
        spec=spec,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        seconds=time.perf_counter() - started,
        reports=tuple(reports),
        captures=keep.captures,
        decompositions=decompose_each(
            keep.captures, split=rule.split, massive_ratio=rule.massive_ratio
        ),
        test=hypothesis_test(*(side_of(_of_role(reports, role)) for role in ("short", "long"))),
        verdict=judge(reports, rule, shipped_curves(spec)),
        environment=environment(),
    )


def _prompts_to_run(spec: ComparisonSpec, model: ModelSpec, prompts: EncodedPrompts) -> int:
    config = read_config(resolve(model.hf_name), spec.revision, spec.trust_remote_code)
    return len(prompts.ids) * passes_of(spec, rope_from_config(config).theta)


def encode_for_all(spec: ComparisonSpec) -> Mapping[str, EncodedPrompts]:
    """The same texts as each model's tokens.  Built-in prompts fit the smallest context of all."""
    texts = load_prompts(spec.prompts)
    sources = {model.key: resolve(model.hf_name) for model in spec.models}
    configs = {
        key: read_config(source, spec.revision, spec.trust_remote_code)
        for key, source in sources.items()
    }
    smallest = min(config.max_position_embeddings for config in configs.values())
    return {
        key: encode(
            texts,
            read_tokenizer(source, spec.revision, spec.trust_remote_code),
            context=smallest if texts.built_in else configs[key].max_position_embeddings,
            tokens=spec.tokens,
            allow_extrapolation=spec.allow_extrapolation,
            vocab_size=configs[key].vocab_size,
        )
        for key, source in sources.items()
    }


def encode_for(
    loaded: LoadedModel, texts: PromptSet | Sequence[str], *, tokens: int | None = None
) -> EncodedPrompts:
    """Texts as the token ids of one loaded model, with exactly one BOS where it has one.

    Args:
        loaded: from `load`.
        texts: from `load_prompts`, or your own strings.
        tokens: prompts of exactly so many tokens, cut or packed with their followers.

    Raises ValueError where a text does not fit the model's context, and for a bare string.

    Examples:
        >>> [len(ids) for ids in gainlens.encode_for(loaded, ["x = 1", "Hello, world."]).tokens]
        [4, 8]
    """
    if isinstance(texts, str):
        raise ValueError(f"texts is a list of strings, one a prompt; got one string, {texts!r:.40}")
    if not isinstance(texts, PromptSet):
        own = tuple(Prompt(f"text-{number}", text) for number, text in enumerate(texts))
        texts = PromptSet("given", built_in=False, prompts=own)
    return encode(
        texts,
        loaded.tokenizer,
        context=loaded.checkpoint.context,
        tokens=tokens,
        allow_extrapolation=False,
        vocab_size=loaded.checkpoint.d_vocab,
    )


def measure(
    spec: ComparisonSpec, model: ModelSpec, prompts: EncodedPrompts, watch: Watch | None = None
) -> Measured:
    """Load one model, capture it on the prompts, decompose, and intervene."""
    watch = watch or _Silent()
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
    weight, ln_weight, tied = unembedding(loaded.model)
    spectrum = unembed_gram(weight)
    captured = capture(
        loaded.model,
        prompts,
        subspaces=subspaces(spectrum),
        patterns=True,
        progress=watch.advance,
    )
    decomposition = decompose(
        captured, split=spec.rule.split, massive_ratio=spec.rule.massive_ratio
    )
    rope = rope_report(loaded.model, loaded.checkpoint.config)
    check_theta(rope)
    rule = spec.rule
    gains = reduce_gains(captured, decomposition, rule.token_class, rule.reduction)
    cells = grade_cells(captured, decomposition, rule, loaded.checkpoint.dtype)
    primary = primary_cell(cells, rule)
    texts = _token_texts(loaded, captured)
    report = ModelReport(
        role=model.role,
        checkpoint=loaded.checkpoint,
        residual=notebook_residual(
            capture(loaded.model, encode_for(loaded, load_prompts("notebook")))
        ),
        unembed=unembed_report(
            spectrum, ln_weight, tied=tied, mean_off=takes_mean_off(loaded.model)
        ),
        rope=rope,
        layers=block_gains(gains, rule),
        cells=cells,
        last_block=gains.log_gain[-1],
        behaviour=primary.behaviour,
        equivalent=is_equivalent(primary.log_gain, rule),
        visible_share=_visible_share(captured, decomposition),
        massive=massive_lifecycle(captured, decomposition, texts, rule.massive_ratio),
        prompts=prompts,
        scale_control=scale_control(loaded.model, _check_tokens(loaded), weight),
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
    return Measured(report, replace(captured, token_text=texts), decomposition)


def _visible_share(captured: Capture, tokens: Decomposition) -> tuple[float, float]:
    """Mean over ordinary tokens of what W_U sees of attention's and the MLP's last write.

    NaN for a component that writes nothing.
    """
    assert captured.visible is not None, "captured with subspaces"
    shares = captured.visible[:, tokens.is_ordinary]
    attention, mlp = (row[np.isfinite(row)] for row in shares)
    return _mean_or_nan(attention), _mean_or_nan(mlp)


def _mean_or_nan(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def environment() -> dict[str, str]:
    """Versions and hardware that the numbers depend on, to the last bit."""
    packages = ("torch", "transformers", "transformer-lens", "numpy", "scipy")
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        **{package: version(package) for package in packages},
        "threads": str(_THREADS),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "gram_kernel": kernel_name("cuda" if torch.cuda.is_available() else "cpu"),
    }


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
    torch.set_num_threads(1 if small else _THREADS)


def _of_role(reports: Sequence[ModelReport], role: str) -> ModelReport:
    return next(report for report in reports if report.role == role)


def _check_tokens(loaded: LoadedModel) -> torch.Tensor:
    return torch.from_numpy(encode_for(loaded, load_prompts("notebook")).tokens[0])[None]


def _token_texts(loaded: LoadedModel, captured: Capture) -> tuple[str, ...]:
    """Every token's text, for the reader."""
    ids = captured.token_id.tolist()
    text = {token: loaded.tokenizer.decode([token]) for token in set(ids)}
    return tuple(text[token] for token in ids)
