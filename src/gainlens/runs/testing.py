"""Test claims: measure each model once, then judge every claim by it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from gainlens.claims.claim import Claim, read_claim
from gainlens.claims.engine import judge_claim
from gainlens.claims.evidence import evidence_of
from gainlens.core.spec import MeasureSpec
from gainlens.metrics.registry import METRICS, metric_named
from gainlens.models.encoding import Prompts
from gainlens.models.loaded import LoadedModel
from gainlens.records.claims import ClaimVerdict, Evidence
from gainlens.runs.claim_test import ClaimTest
from gainlens.runs.intervening import ArmsByIntervention, arms_by_intervention
from gainlens.runs.measure import Source, measure
from gainlens.runs.measured import Measured
from gainlens.runs.measurement import Measurement
from gainlens.runs.series import step_of


def test(
    claims: Claim | str | Path | Sequence[Claim | str | Path],
    models: Mapping[str, Source | Sequence[Source]],
    prompts: Prompts | None = None,
    *,
    tokens: int | Sequence[int] = (),
    spec: MeasureSpec | None = None,
    progress: Callable[[int], None] | None = None,
) -> ClaimTest:
    """Test claims on models; every model is measured once, whatever the number of claims.

    An intervention that several claims name runs once too.

    Args:
        claims: names of the catalogue, TOML files or claims from `read_claim`; one or several.
        models: a model per role, from `load` or `wrap`, a name or a directory.  A claim about a
            series or about many models takes a list under the role `model`.
        prompts: as for `measure`.
        tokens: prompt lengths in tokens; a trend over length needs several.
        spec: back end, dtype, device and rule; the defaults if None.
        progress: called with the number of prompts done since the last call.

    A claim that these models cannot test is NOT TESTED, and one that they cannot decide is
    UNDETERMINED, each with the reason.  Raises ValueError if a claim or a model cannot be read.

    Examples:
        >>> found = gainlens.test("late-mlps-erase", {"model": loaded}, ["x = 1", "Hello, world."])
        >>> found.verdicts[0].outcome  # two prompts are too few
        'UNDETERMINED'
    """
    several: Sequence[Claim | str | Path] = (
        [claims] if isinstance(claims, Claim | str | Path) else claims
    )
    asked = [one if isinstance(one, Claim) else read_claim(one) for one in several]
    if not asked:
        raise ValueError("there is no claim to test: give at least one")
    roles: list[str] = []
    sources: list[Any] = []
    for role, given in models.items():
        of_role: list[Any] = [*given] if isinstance(given, list | tuple) else [given]
        roles += [role] * len(of_role)
        sources += of_role
    wanted = [name for one in asked for name in (one.estimand.metric, one.contrast.other)]
    metrics = tuple(dict.fromkeys(name for name in wanted if name in METRICS))
    spec = spec or MeasureSpec(name="claims", models=())
    arms: list[ArmsByIntervention] = []

    def intervene(one: Measured, loaded: LoadedModel) -> None:
        arms.append(arms_by_intervention(asked, one, loaded, spec))

    measured = measure(
        sources,
        prompts,
        tokens=tokens,
        heads=any(metric_named(name).over == "block head token" for name in metrics),
        spec=spec.model_copy(update={"metric": metrics}),
        progress=progress,
        then=intervene,
    )
    lengths = len(measured.measured) // len(sources)
    verdicts: list[ClaimVerdict] = []
    for claim in asked:
        evidence: list[Evidence] = []
        for place, one in enumerate(measured.measured):
            role, source = roles[place // lengths], sources[place // lengths]
            if role not in (claim.roles or ("model",)):
                continue
            checkpoint = one.report.checkpoint
            name = str(source) if isinstance(source, str | Path) else checkpoint.hf_name
            step = step_of(name, checkpoint.training)
            done = None if claim.intervention is None else arms[place][claim.intervention.passes]
            evidence.append(evidence_of(claim, one.report, one.decomposition, role, step, done))
        verdicts.append(judge_claim(claim, evidence, spec.rule))
    kept = {one.name: getattr(measured, one.name) for one in fields(Measurement) if one.init}
    return ClaimTest(**kept, verdicts=tuple(verdicts))
