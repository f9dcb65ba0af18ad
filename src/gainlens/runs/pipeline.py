"""The story on one screen: load -> capture -> decompose -> test -> report."""

import datetime
import gc
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from gainlens.claims.judging import judge
from gainlens.claims.training_table import shipped_curves
from gainlens.core.spec import ComparisonSpec, ModelSpec
from gainlens.interventions.plan import passes_of
from gainlens.models.config import rope_from_config
from gainlens.models.hub import read_config, read_tokenizer
from gainlens.models.processes import decided
from gainlens.models.sources import resolve
from gainlens.notebook.rule import hypothesis_test, side_of
from gainlens.prompts.encoding import encode
from gainlens.prompts.texts import load_prompts
from gainlens.records.capture import Capture
from gainlens.records.comparison import Comparison, ModelReport
from gainlens.records.inputs import EncodedPrompts
from gainlens.results.lazy import decompose_each
from gainlens.runs.environment import environment
from gainlens.runs.measuring import Measured, measure
from gainlens.runs.progress import Silent, Watch


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
        self.captures[model.key] = measured.decomposition.capture
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
    watch, keep = watch or Silent(), keep or _InMemory()
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


def _of_role(reports: Sequence[ModelReport], role: str) -> ModelReport:
    return next(report for report in reports if report.role == role)
