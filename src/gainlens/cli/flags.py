"""TODO: cli.flags."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gainlens.core.presets import PRESETS
from gainlens.core.spec import ComparisonSpec, ModelSpec, Rule, parse_ablation
from gainlens.core.vocabulary import REDUCTIONS, SPLITS, TOKEN_CLASSES, Role


def _estimand(text: str) -> dict[str, str]:
    """`ordinary/geomean` or `ordinary/geomean/logmean` as the fields of a Rule."""
    parts = text.split("/")
    known = {"token_class": TOKEN_CLASSES, "reduction": REDUCTIONS, "split": SPLITS}
    if not 2 <= len(parts) <= 3 or any(
        part not in names for part, names in zip(parts, known.values(), strict=False)
    ):
        raise ValueError(
            f"--estimand {text!r} is not CLASS/REDUCTION or CLASS/REDUCTION/SPLIT, with a class of "
            f"{', '.join(TOKEN_CLASSES)}, a reduction of {', '.join(REDUCTIONS)} and a split of "
            f"{', '.join(SPLITS)}"
        )
    return dict(zip(known, parts, strict=False))


def key_of(source: str, taken: Sequence[str]) -> str:
    """A model's key: the last part of its name, safe as a file name, and not taken yet."""
    key = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(source).name).strip(".-") or "model"
    number = 2
    while (numbered := key if number == 2 and key not in taken else f"{key}-{number}") in taken:
        number += 1
    return numbered


def models_of(
    preset: str | None,
    short: str | None,
    long: str | None,
    references: Sequence[str],
    controls: Sequence[str],
) -> tuple[ModelSpec, ...]:
    """The models of a comparison from the flags."""
    if (short is None) != (long is None):
        alone, missing = ("--short", "--long") if short else ("--long", "--short")
        raise ValueError(f"{alone} needs {missing}: a comparison takes one model of each")
    if short is not None and preset is not None:
        raise ValueError("--preset and --short/--long exclude one another: give one or the other")
    models: list[ModelSpec] = [] if short and long else list(PRESETS[preset or "twins"])
    pair = (short, long) if short and long else ()
    sources: dict[Role, Sequence[str]] = {
        "short": pair[:1],
        "long": pair[1:],
        "reference": references,
        "control": controls,
    }
    for role, given in sources.items():
        for source in given:
            key = key_of(source, [model.key for model in models])
            models.append(ModelSpec(key=key, hf_name=source, role=role))
    return tuple(models)


def spec_of(flags: dict[str, Any]) -> ComparisonSpec:
    """The spec that a set of flags asks for; ValueError for what does not go together."""
    models = models_of(
        flags["preset"], flags["short"], flags["long"], flags["reference"], flags["control"]
    )
    keys = {model.role: model.key for model in reversed(models)}
    name = f"{keys['short']}-vs-{keys['long']}" if flags["short"] else flags["preset"] or "twins"
    rule = _estimand(flags["estimand"]) | {
        field: flags[field] for field in ("confidence", "min_prompts", "resamples", "seed")
    }
    passed = ("prompts", "tokens", "backend", "dtype", "device", "revision")
    return ComparisonSpec(
        **_intervention_fields(flags),
        name=name,
        models=models,
        rule=Rule.model_validate(rule),
        allow_extrapolation=flags["allow_extrapolation"],
        trust_remote_code=flags["trust_remote_code"],
        **{field: flags[field] for field in passed},
    )


def _intervention_fields(flags: dict[str, Any]) -> dict[str, Any]:
    given = {
        field: flags[field]
        for field in ("sweep", "sweep_how", "sweep_heads", "theta", "ablate", "controls")
        if flags[field]
    }
    if flags["no_interventions"]:
        if given:
            flag = f"--{next(iter(given)).replace('_', '-')}"
            raise ValueError(f"--no-interventions and {flag} exclude one another: give one")
        return {"sweep": 0, "theta": ()}
    return given | {"ablate": tuple(parse_ablation(text) for text in flags["ablate"])}
