"""Re-score the notebook's JSON or our own result.json: its models, and its test done again."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from gainlens.notebook.documents import check_label, place, validated
from gainlens.notebook.record import Finding
from gainlens.notebook.rescored import (
    Limit,
    Measurement,
    NotebookTest,
    PairReason,
    Rescore,
    Spectrum,
)
from gainlens.notebook.result_file import SCHEMA, FileModel, FileTest, Head, mismatch
from gainlens.notebook.rule import Side, hypothesis_test

_SHAPE: Final = "the notebook's models"
_ROLES: Final = ("short", "long")


def rescore_notebook(name: str, document: dict[str, Any]) -> Rescore:
    """Re-score the notebook's JSON or our own; errors begin with `name`."""
    head = validated(name, (), Head, document)
    if head.gainlens is not None and head.gainlens.schema_number != SCHEMA:
        raise ValueError(
            f"{name} has schema {head.gainlens.schema_number}, this gainlens reads schema "
            f"{SCHEMA}: re-score it with the gainlens that wrote it, or a newer one"
        )
    if not head.models:
        raise ValueError(f"{name} cannot be re-scored: models is empty; it needs at least one")
    models = {key: _model(name, key, tree) for key, tree in head.models.items()}
    chosen = _choose(models)
    pair = None
    if not isinstance(chosen, str):
        short, long, how = chosen
        pair = _test(models, short, long, how, head.hypothesis_test or FileTest())
    blind = any(model.residual.true_last_gain is None for model in models.values())
    limits: list[Limit] = ["interval", "tokens"]
    if blind:
        limits.insert(0, "block_of_last_gain")
    if pair is not None:
        limits.append("cause")
    return Rescore(
        source=name.strip("'"),
        ours=head.gainlens is not None,
        shapes=(_SHAPE,),
        models=models,
        pair=pair,
        pair_reason=chosen if isinstance(chosen, str) else None,
        measurements=tuple(row for key in models for row in _measurements(key, models[key])),
        spectra=tuple(_spectrum(key, model) for key, model in models.items() if model.w_u),
        limits=tuple(limits),
    )


def _model(name: str, key: str, tree: object) -> FileModel:
    try:
        check_label(key)
    except ValueError as problem:
        text = f"{name} cannot be re-scored: the key {place(('models', key))} {problem}"
        raise ValueError(text) from None
    model = validated(name, ("models", key), FileModel, tree)
    gains, norms = model.residual.gains, model.residual.norms
    if gains is not None and len(gains) != len(norms) - 1:
        raise ValueError(
            f"{name} cannot be re-scored: {place(('models', key, 'residual', 'gains'))} has "
            f"{len(gains)} entries for {len(norms)} norms; it needs one fewer than norms"
        )
    return model


def _measurements(key: str, model: FileModel) -> Iterator[Measurement]:
    residual, blocks = model.residual, len(model.residual.norms) - 1
    known: dict[str, Any] = {
        "model": key, "reduction": "ratio_of_means", "block": blocks - 1, "num_blocks": blocks,
    }  # fmt: skip
    yield Measurement(
        called="last_gain", state="last block and final norm", basis="notebook",
        stated=residual.recomputed[-1], **known,
    )  # fmt: skip
    if residual.true_last_gain is not None:
        yield Measurement(
            called="true_last_gain", state="last block", basis="file",
            stated=residual.true_last_gain, **known,
        )  # fmt: skip


def _spectrum(key: str, model: FileModel) -> Spectrum:
    w_u = model.w_u
    assert w_u is not None
    return Spectrum(
        model=key, matrix="W_U", called="w_u", rows=w_u.vocab_size, columns=w_u.hidden_dim,
        spectral_norms=(w_u.spectral_norm,), frobenius_norms=(w_u.frobenius_norm,),
    )  # fmt: skip


def _choose(
    models: Mapping[str, FileModel],
) -> tuple[str, str, Literal["role", "order"]] | PairReason:
    """Return short, long and how they were told apart; or why they cannot be."""
    if any(model.role is not None for model in models.values()):
        pairs = [[key for key, model in models.items() if model.role == role] for role in _ROLES]
        if all(len(keys) == 1 for keys in pairs):
            return pairs[0][0], pairs[1][0], "role"
        return "roles"
    if len(models) != len(_ROLES):
        return "two_models"
    short, long = models
    return short, long, "order"


def _side(model: FileModel) -> Side:
    return Side(
        last_gain=model.residual.recomputed[-1],
        rope_theta=model.theta,
        spectral_norm=None if model.w_u is None else model.w_u.spectral_norm,
    )


def _test(
    models: Mapping[str, FileModel],
    short: str,
    long: str,
    how: Literal["role", "order"],
    stated: FileTest,
) -> NotebookTest:
    one, other = models[short], models[long]
    test = hypothesis_test(_side(one), _side(other))
    ratios: dict[str, float | None] = {
        name: None if math.isnan(value := getattr(test, name)) else value
        for name in ("theta_ratio", "gain_ratio", "wu_ratio")
    }
    vocabulary = rest = None
    if one.w_u is not None and other.w_u is not None:
        vocabulary = math.sqrt(other.w_u.vocab_size / one.w_u.vocab_size)
        rest = None if ratios["wu_ratio"] is None else ratios["wu_ratio"] / vocabulary
    findings = [
        finding
        for name, value in ratios.items()
        for finding in mismatch(name, getattr(stated, name), value)
    ]
    if stated.verdict is not None and stated.verdict != test.verdict:
        findings.append(Finding(place="verdict", stated=stated.verdict, recomputed=test.verdict))
    return NotebookTest(
        short=short, long=long, chosen_by=how, verdict=test.verdict,
        stated_verdict=stated.verdict, wu_vocabulary=vocabulary, wu_rest=rest,
        differing=tuple(name for name in one.facts if one.facts[name] != other.facts[name]),
        findings=tuple(findings), **ratios,
    )  # fmt: skip
