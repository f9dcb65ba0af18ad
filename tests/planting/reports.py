"""Model reports with planted gains, for the tests of the verdict and of attribution."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from calibration import last_block, planted_capture

from gainlens.claims.behaviour import is_equivalent
from gainlens.claims.blocks import block_gains
from gainlens.claims.cells import grade_cells, primary_cell
from gainlens.claims.intervals import halves_interval
from gainlens.claims.resolving import last_block_parts
from gainlens.core.spec import Rule
from gainlens.core.vocabulary import Role
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.reductions import reduce_gains
from gainlens.records.capture import Capture
from gainlens.records.comparison import ModelReport, NotebookResidual
from gainlens.records.inputs import Checkpoint, EncodedPrompts
from gainlens.records.weights import RopeReport, UnembedReport

RULE = Rule(resamples=400)
TRAINING = {"data": "abc", "tokens": 1000, "steps": 10, "seed": 0}


def checkpoint(
    name: str,
    context: int = 512,
    theta: float = 1e4,
    training: Mapping[str, Any] | None = TRAINING,
    **config: Any,
) -> Checkpoint:
    fields = {
        "vocab_size": 4096,
        "hidden_size": 8,
        "model_type": "llama",
        "_name_or_path": name,
        "transformers_version": "5.0",
        "max_position_embeddings": context,
        "rope_parameters": {"rope_theta": theta, "rope_type": "default"},
    }
    return Checkpoint(
        name=name, hf_name=name, revision=None, backend="native", dtype="float32",
        architecture="LlamaForCausalLM", num_blocks=1, num_heads=1, d_model=8, d_vocab=4096,
        context=context, config=fields | config, training=training, additivity=0.0, logits_kl=None,
    )  # fmt: skip


def report(
    role: Role,
    capture: Capture,
    place: Checkpoint,
    *,
    theta: float | None = 1e4,
    rule: Rule = RULE,
    ids: tuple[str, ...] | None = None,
    sha256: str = "same texts",
    groups: tuple[str, ...] = (),
) -> ModelReport:
    """Everything that judge reads, from one planted capture."""
    decomposition = decompose(capture)
    gains = reduce_gains(decomposition, rule.token_class, rule.reduction)
    cells = grade_cells(decomposition, rule, place.dtype)
    primary = primary_cell(cells, rule)
    names = ids or tuple(f"p{i}" for i in range(capture.num_prompts))
    return ModelReport(
        role=role,
        checkpoint=place,
        residual=NotebookResidual(
            (1.0, 0.9), (0.9,), 1.0, 0.9, 0.9, 0.9, False, 0.9, 1, 1, 0, 1.2, 0.75
        ),
        unembed=UnembedReport(
            (4096, 8), 4096, 8, 9.0, 3.0, 1.0, 0.05, 1.5, 4.0, 6.0, 0.1,
            *np.ones((3, 8)), 1, False,
        ),
        rope=RopeReport(theta, None, place.context, theta, np.ones(4), 0.25, 800.0),
        blocks=block_gains(gains, rule),
        cells=cells,
        last_block=last_block(capture),
        behaviour=primary.behaviour,
        equivalent=is_equivalent(primary.log_gain, rule),
        massive=(),
        prompts=EncodedPrompts(
            "mixed", sha256, names,
            tuple(np.zeros(n, dtype=np.int64) for n in np.bincount(capture.prompt)), True, 0, (),
            groups=groups,
        ),
        scale_control=0.0,
        halves_control=halves_interval(last_block(capture)),
        parts=last_block_parts(decomposition, gains, rule),
    )  # fmt: skip


def planted(
    gain: float, seed: int, *, prompts: int = 40, spread: float = 0.05, **options: Any
) -> Capture:
    """One block whose ordinary tokens have this gain on average over prompts."""
    rng = np.random.default_rng(seed)
    noise = spread * rng.normal(size=prompts)
    return planted_capture(np.log(gain) + noise - noise.mean(), rng, **options)


def pair(
    short: Capture, long: Capture, *, rule: Rule = RULE, **options: Any
) -> tuple[ModelReport, ModelReport]:
    """A short and a long report that differ in theta and context alone."""
    return (
        report("short", short, checkpoint("s", 512, 1e4), theta=1e4, rule=rule),
        report("long", long, checkpoint("l", 4096, 5e5, **options), theta=5e5, rule=rule),
    )
