"""Run a comparison: open every model, measure each, judge, and return a Comparison."""

import datetime
import gc
import time

from gainlens.claims.judging import judge
from gainlens.claims.training_table import shipped_curves
from gainlens.core.spec import ComparisonSpec
from gainlens.interventions.plan import passes_of
from gainlens.models.processes import decided
from gainlens.notebook.rule import hypothesis_test, side_of
from gainlens.records.capture import Capture
from gainlens.records.comparison import Comparison, ModelReport, report_of
from gainlens.report.progress import ProgressWatch, silent
from gainlens.results.lazy import decompose_each
from gainlens.runs.environment import environment
from gainlens.runs.inputs import open_inputs, thetas_to_swap
from gainlens.runs.measuring import measure_model
from gainlens.runs.resume import Partials
from gainlens.runs.workers import Workers, result_of


def compare(
    spec: ComparisonSpec,
    watch: ProgressWatch | None = None,
    keep: Partials | None = None,
    workers: Workers | None = None,
) -> Comparison:
    """Measure every model of a comparison on the same texts and judge.

    One model is in memory at a time.  Within `processes.joined` the prompts are spread over
    processes; `keep` then belongs to the first one, and a resumed model's capture exists there
    alone.

    Args:
        spec: what to compare and how, fixed before the run.
        watch: shows every model and prompt that is done; None: no progress.
        keep: gives back models that an interrupted run had finished, and takes finished ones to
            disk; None: all models' captures are in memory together.
        workers: processes that measure some of the models, from `workers.started_for`.

    Raises ValueError, in one sentence, for what the user can change.
    """
    started = time.perf_counter()
    watch = watch or silent(len(spec.models))
    inputs = open_inputs(spec)
    thetas = thetas_to_swap(spec, inputs)
    reports: list[ModelReport] = []
    captures: dict[str, Capture] = {}
    for model in spec.models:
        own = inputs[model.key]
        passes = passes_of(spec, thetas, own.theta)
        with watch.model(model.label or model.key, len(own.prompts.ids) * passes):
            report = decided(keep.take(model, own.prompts) if keep else None)
            if report is None:
                measured = result_of(workers, model.key) or measure_model(
                    spec, own, thetas, watch.advance
                )
                if keep:
                    report = keep.add(model, own.prompts, measured)
                else:
                    report = measured.report
                    captures[model.key] = measured.decomposition.capture
                del measured
            reports.append(report)
        gc.collect()
    rule, kept = spec.rule, keep.captures if keep else captures
    short, long = (side_of(report_of(reports, role)) for role in ("short", "long"))
    return Comparison(
        spec=spec,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        seconds=time.perf_counter() - started,
        reports=tuple(reports),
        captures=kept,
        decompositions=decompose_each(kept, split=rule.split, massive_ratio=rule.massive_ratio),
        test=hypothesis_test(short, long),
        verdict=judge(reports, rule, shipped_curves(spec)),
        environment=environment(),
    )
