"""Planted sweeps and doses of theta, by model key."""

from collections.abc import Sequence

import numpy as np
from planting.figure_reports import NAN, interval_of

from gainlens.records.comparison import ModelReport
from gainlens.records.interventions import AblationEffect, Change, LastBlock, ThetaDose


def last_block(log_gain: float, behaviour: str | None = "EXPANDS") -> LastBlock:
    return LastBlock(interval_of(log_gain, 0.02), 3.8, interval_of(2.4, 0.1), behaviour)


def change_of(delta: float, half: float = 0.01, behaviour: str | None = "EXPANDS") -> Change:
    return Change(
        last_block(0.09), last_block(0.09 + delta, behaviour),
        interval_of(delta, half), interval_of(delta / 2, half),
    )  # fmt: skip


def sweep(blocks: int, seed: int, heads: int = 0) -> tuple[AblationEffect, ...]:
    rng = np.random.default_rng(seed)
    found = []
    for back in range(1, blocks + 1):
        for site in ("hook_attn_out", "hook_mlp_out", *(f"attn.hook_z[{h}]" for h in range(heads))):
            delta = float(rng.normal(0, 0.1))
            behaviour = "CONTRACTS" if delta < -0.09 else "EXPANDS"
            found.append(
                AblationEffect(
                    f"blocks.-{back}.{site}", "zero", change_of(delta, 0.05, behaviour), np.zeros(3)
                )
            )
    return tuple(found)


def sweeps_of(
    reports: Sequence[ModelReport], blocks: int = 8, heads: int = 0
) -> dict[str, tuple[AblationEffect, ...]]:
    return {
        report.checkpoint.name: sweep(blocks, seed, heads) for seed, report in enumerate(reports)
    }


def doses_of(reports: Sequence[ModelReport]) -> dict[str, tuple[ThetaDose, ...]]:
    return {
        report.checkpoint.name: tuple(
            ThetaDose(theta, theta == report.rope.rope_theta,
                      change_of(*(0.0, NAN) if theta == report.rope.rope_theta
                                else (place * 0.01, 0.02)),
                      np.zeros(3))
            for place, theta in enumerate((1e3, 1e4, 1e5, 5e5, 5e6))
        )
        for report in reports
    }  # fmt: skip
