"""A whole Comparison without a model: random streams of chosen gains, hostile texts, gaps."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planting.interventions import ATTENTION, MLP, interventions

from gainlens.claims.behaviour import is_equivalent
from gainlens.claims.blocks import block_gains
from gainlens.claims.cells import grade_cells, primary_cell
from gainlens.claims.intervals import halves_interval
from gainlens.claims.judging import judge
from gainlens.claims.resolving import last_block_parts
from gainlens.core.spec import Ablation, ComparisonSpec, ModelSpec, Rule
from gainlens.core.vocabulary import Role
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.massive import massive_lifecycle
from gainlens.metrics.reductions import reduce_gains
from gainlens.notebook.rule import hypothesis_test, side_of
from gainlens.notebook.statistics import notebook_residual
from gainlens.records.capture import Capture
from gainlens.records.comparison import Comparison, ModelReport
from gainlens.records.inputs import Checkpoint, EncodedPrompts
from gainlens.records.interventions import Interventions
from gainlens.records.weights import RopeReport, UnembedReport
from gainlens.report.explorer import explored
from gainlens.results import result_json as store
from gainlens.results.files import write_json
from gainlens.results.parquet import HEADS, TOKENS, TokenTable, write_heads
from gainlens.results.run_folder import RESULT

HOSTILE = "<script>alert(1)</script>"
"""Text of the first prompt, a token a sign; HOSTILE_TOKEN is one more token behind it."""
HOSTILE_TOKEN = "<img src=x onerror=alert(3)>"
RULE = Rule(resamples=400)
D_MODEL = 16


def stream(
    tokens: tuple[np.ndarray, ...], gains: tuple[float, ...], seed: int, *, whole: bool = True
) -> Capture:
    """Blocks of about these gains.

    After block 0 the third token of every prompt but the first is massive (100 times the others),
    the fourth barely (15 times).  `whole=False` leaves out all that a capture may lack.
    """
    rng = np.random.default_rng(seed)
    prompt = np.repeat(np.arange(len(tokens)), [len(ids) for ids in tokens])
    position = np.concatenate([np.arange(len(ids)) for ids in tokens])
    count, blocks = len(prompt), len(gains)
    x = rng.normal(size=(count, D_MODEL))
    columns, top = [], []
    for block, gain in enumerate(gains):
        attention = 0.1 * rng.normal(size=x.shape)
        mlp = (gain - 1) * x + 0.1 * rng.normal(size=x.shape)
        if block == 0:
            mlp[(position == 2) & (prompt > 0), 0] += 400.0
            mlp[(position == 3) & (prompt > 0), 0] += 60.0
        y = x + attention + mlp
        pairs = ((x, x), (attention, attention), (mlp, mlp), (x, attention), (x, mlp))
        pairs += ((attention, mlp), (y, y), (x + attention,) * 2, (x + mlp,) * 2)
        columns.append([(left * right).sum(-1) for left, right in pairs])
        largest = np.argsort(-np.abs(y), axis=1)[:, :4]
        top.append((np.take_along_axis(y, largest, 1), largest))
        x = y
    share = rng.uniform(size=(2, 2, count)).astype(np.float32).astype(np.float64)
    sink = rng.uniform(size=(blocks, 3, len(tokens)))
    ids = np.concatenate(tokens)
    single = np.float32  # what the parquet file keeps
    return Capture(
        prompt=prompt,
        position=position,
        token_id=ids,
        gram=np.array(columns).transpose(1, 0, 2).astype(single),
        top_value=np.array([value for value, _ in top]).astype(single),
        top_index=np.array([index for _, index in top]).astype(np.int32),
        normed=rng.uniform(3, 5, size=count).astype(single).astype(np.float64),
        visible=share[0] if whole else None,
        null=share[1] if whole else None,
        sink=sink if whole else None,
        token_text=tuple(HOSTILE_TOKEN if i == 1 else chr(i) for i in ids) if whole else None,
    )


def model_report(key: str, role: Role, capture: Capture, prompts: EncodedPrompts) -> ModelReport:
    """Everything that a report holds; what no capture can give is made up."""
    theta = 1e4 if role == "short" else 5e5
    decomposition = decompose(capture)
    gains = reduce_gains(decomposition, RULE.token_class, RULE.reduction)
    cells = grade_cells(decomposition, RULE, "float32")
    primary = primary_cell(cells, RULE)
    first = capture.prompt == 0
    sentence = Capture(
        capture.prompt[first], capture.position[first], capture.token_id[first],
        capture.gram[..., first], capture.top_value[:, first], capture.top_index[:, first],
        capture.normed[first],
    )  # fmt: skip
    config = {"rope_parameters": {"rope_theta": theta}, "id2label": {"0": "a"}, "hidden_act": None}
    return ModelReport(
        role=role,
        checkpoint=Checkpoint(
            name=key, hf_name=f"some/{key}", revision=None, backend="native", dtype="float32",
            architecture="LlamaForCausalLM", num_blocks=capture.gram.shape[1], num_heads=3,
            d_model=D_MODEL, d_vocab=300, context=512 if role == "short" else 4096, config=config,
            training=None if role == "long" else {"seed": 0}, additivity=1e-7, logits_kl=None,
        ),
        residual=notebook_residual(sentence),
        unembed=UnembedReport(
            (300, D_MODEL), 300, D_MODEL, 9.0, 3.0, 1.0, 0.05, 1.5, 4.0, 6.0, 0.1,
            *np.sort(np.random.default_rng(1).uniform(size=(3, D_MODEL)))[:, ::-1], 4, False,
        ),
        rope=RopeReport(theta, None, 512, None, np.array([1.0, np.inf]), 0.25, None)
        if role == "long"
        else RopeReport(theta, {"factor": 8.0}, 512, theta, np.arange(4.0), 0.25, 800.0),
        blocks=block_gains(gains, RULE),
        cells=cells,
        last_block=gains.log_gain[-1],
        parts=last_block_parts(decomposition, gains, RULE),
        behaviour=primary.behaviour,
        equivalent=is_equivalent(primary.log_gain, RULE),
        massive=massive_lifecycle(
            decomposition, list(capture.token_text or map(str, capture.token_id)), 10.0
        ),
        prompts=prompts,
        scale_control=1e-7,
        halves_control=halves_interval(gains.log_gain[-1]),
        visible_share=None if capture.visible is None else (0.3, 0.4),
        interventions=interventions(
            gains.log_gain[-1],
            {ATTENTION: -0.01, MLP: -0.4 if role == "short" else 0.4},
            {1e4: 0.0, 5e5: 0.01},
            own=theta,
            ablated=-0.3,
            notes=("<i>noted</i>",),
            controls=True,
        ),
    )  # fmt: skip


def planted_run(
    *,
    depth: int = 3,
    prompts: int = 24,
    lengths: tuple[int, int] = (6, 14),
    models: int = 3,
    seed: int = 0,
    prefix: int = 1,
) -> Comparison:
    """A short model that expands (1.2), a long one that contracts (0.8) and that lacks all that a
    capture may lack, and references; the first prompt's text is HOSTILE."""
    rng = np.random.default_rng(5)
    spread = rng.integers(*lengths, size=prompts - 1)
    texts = [np.array([*map(ord, HOSTILE), 1])]
    texts += [rng.integers(97, 123, size=length) for length in spread]
    encoded = EncodedPrompts(
        "<b>mine</b>.txt", "ab" * 32, tuple(f"line-{i}" for i in range(prompts)), tuple(texts),
        bos=False, cut=0, left_out=("line-99: <i>empty</i>",), note="a & b",
        prefix=prefix,
    )  # fmt: skip
    roles: list[Role] = ["short", "long", *["reference"] * (models - 2)]  # type: ignore[list-item]
    names = ["alpha", "beta <img src=x onerror=alert(2)>", *(f"m{i}" for i in range(models - 2))]
    captures = {
        name: replace(
            stream(
                encoded.tokens, (1.1,) * (depth - 1) + (0.8 if role == "long" else 1.2,),
                seed + number,
                whole=role != "long",
            ),
            prefix=prefix,
        )
        for number, (name, role) in enumerate(zip(names, roles, strict=True))
    }  # fmt: skip
    reports = tuple(
        model_report(name, role, captures[name], encoded)
        for name, role in zip(names, roles, strict=True)
    )
    spec = ComparisonSpec(
        name="planted",
        models=tuple(
            ModelSpec(key=name, hf_name=f"some/{name}", role=role)
            for name, role in zip(names, roles, strict=True)
        ),
        prompts="<b>mine</b>.txt",
        rule=RULE,
        theta=(5e5,),
        ablate=(Ablation(site=MLP, how="zero"),),
        controls=True,
    )
    return Comparison(
        spec=spec,
        date="2026-01-02",
        seconds=1.5,
        reports=reports,
        captures=captures,
        decompositions={key: decompose(capture) for key, capture in captures.items()},
        test=hypothesis_test(*(side_of(report) for report in reports[:2])),
        verdict=judge(reports, RULE),
        environment={"python": "3.11", "numpy": "2"},
    )


def write_files(folder: Path, run: Comparison) -> Path:
    """Write what a run folder is read from: tables and result, without figures and page."""
    folder.mkdir(parents=True, exist_ok=True)
    reports = {report.checkpoint.name: report for report in run.reports}
    with TokenTable(folder / TOKENS) as tokens:
        for key, report in reports.items():
            tokens.add(report, run.decompositions[key])
    sinks = [(report, run.captures[key].sink) for key, report in reports.items()]
    write_heads(folder / HEADS, sinks)
    write_json(folder / RESULT, store.result_json(run))
    return folder


@contextmanager
def drawing_only(*names: str) -> Generator[None]:
    """Let comparisons draw these figures alone within the context."""
    from gainlens.runs import writing  # it needs pandas, which a page does without

    drawings = writing.drawings
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            writing, "drawings", lambda *of: {n: f for n, f in drawings(*of).items() if n in names}
        )
        yield


def explored_of(run: Comparison) -> dict[str, Any]:
    """Return what a page lets one explore, by model key."""
    return {
        report.checkpoint.name: explored(
            run,
            report,
            run.decompositions[report.checkpoint.name],
        )
        for report in run.reports
    }


def without_interventions(run: Comparison) -> Comparison:
    """Return the run as it would be under --no-interventions."""
    reports = tuple(replace(report, interventions=Interventions()) for report in run.reports)
    fields = {"ablate": (), "theta": (), "sweep": 0, "controls": False}
    return replace(
        run,
        reports=reports,
        verdict=judge(reports, run.spec.rule),
        spec=run.spec.model_copy(update=fields),
    )


@dataclass(frozen=True)
class WithoutClaim:
    """A run that tests no claim, as `gainlens.measure` gives it."""

    reports: tuple[ModelReport, ...]
    spec: ComparisonSpec
    date: str = "2026-01-01T00:00:00+00:00"
    seconds: float = 1.5
    environment: Mapping[str, str] = field(default_factory=dict)
    command: str | None = None


def without_claim(run: Comparison) -> WithoutClaim:
    """Return what was measured in a comparison without its verdict."""
    return WithoutClaim(run.reports, run.spec)
