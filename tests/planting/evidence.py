"""Numbers per block and prompt whose claim is known to hold or to fail."""

from dataclasses import replace

import numpy as np

from gainlens.core.spec import Rule
from gainlens.records.claims import Controlled, Evidence

RULE = Rule(resamples=400)
BLOCKS = 8
FACTS = {
    "context": 512.0, "theta": 1e4, "layers": 8.0, "d_model": 128.0, "vocabulary": 4096.0,
    "heads": 8.0, "kv_heads": 8.0, "norm": "RMSNorm",
}  # fmt: skip


def planted(
    blocks, role="model", name=None, *, prompts=32, scatter=0.02, seed=0, facts=None,
    ways=("mean",), others=None, training=None, **fields,
):  # fmt: skip
    """Return evidence whose block means are `blocks`, one number or a list, plus scatter."""
    rng = np.random.default_rng(seed)
    means = np.broadcast_to(np.asarray(blocks, dtype=np.float64), (BLOCKS,))

    def drawn(of):
        return np.asarray(of, dtype=np.float64)[:, None] + scatter * rng.standard_normal(
            (BLOCKS, prompts)
        )

    return Evidence(
        role=role,
        name=name or role,
        facts=FACTS | (facts or {}),
        ids=tuple(f"prompt-{place}" for place in range(prompts)),
        lengths=np.arange(10, 10 + prompts, dtype=np.int64),
        sha256="same",
        values={way: drawn(means) for way in ways},
        with_values=None if others is None else drawn(others),
        seed=training,
        **fields,
    )


def intervened(change, control, *, beyond, draws=3, between=0.0, population=None, **fields):
    """Return evidence of a claim with an intervention, whose mean changes are planted.

    beyond: the claim is about the change minus the control's.  between: standard deviation of the
    draws' mean changes.
    """
    one = planted(change, **fields)
    rng = np.random.default_rng(fields.get("seed", 0) + 1)
    shape = (draws, *one.values["mean"].shape)
    means = control + between * np.arange(draws).reshape(-1, 1, 1)
    drawn = means + 0.02 * rng.standard_normal(shape)
    found = Controlled(one.values["mean"], drawn, population)
    judged = found.change - found.control if beyond else found.change
    return replace(one, values={"mean": judged}, controlled=found)
