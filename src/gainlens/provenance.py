"""A spec -> the command that asks for it."""

import shlex

from gainlens.spec import PRESETS, ComparisonSpec, ModelSpec, Rule

_SCRIPT = "python scripts/compare.py"


def command_of(spec: ComparisonSpec) -> str | None:
    """The command whose flags give this spec; None where only the library can say it.

    Where the run was written (--out, --figures) is no part of a spec.
    """
    models = _model_flags(spec.models)
    if models is None or spec.rule != _expressible(spec.rule):
        return None
    return " ".join([_SCRIPT, *(shlex.quote(word) for word in (*models, *_other_flags(spec)))])


def _model_flags(models: tuple[ModelSpec, ...]) -> list[str] | None:
    for name, preset in PRESETS.items():
        if models[: len(preset)] == preset:
            flags, models = ([] if name == "twins" else ["--preset", name]), models[len(preset) :]
            break
    else:
        flags = []
        if [model.role for model in models[:2]] != ["short", "long"]:
            return None
    for model in models:
        if model != ModelSpec(key=model.key, hf_name=model.hf_name, role=model.role):
            return None
        flags += [f"--{model.role}", model.hf_name]
    return flags


def _expressible(rule: Rule) -> Rule:
    """The rule with what no flag sets at its default."""
    usual = Rule()
    return rule.model_copy(
        update={"massive_ratio": usual.massive_ratio, "equivalence": usual.equivalence}
    )


def _other_flags(spec: ComparisonSpec) -> list[str]:
    rule, usual = spec.rule, Rule()
    flags: list[str] = []
    if (rule.token_class, rule.reduction, rule.split) != (
        usual.token_class,
        usual.reduction,
        usual.split,
    ):
        flags += ["--estimand", f"{rule.token_class}/{rule.reduction}/{rule.split}"]
    for field in ("confidence", "min_prompts", "resamples", "seed"):
        if getattr(rule, field) != getattr(usual, field):
            flags += [f"--{field.replace('_', '-')}", str(getattr(rule, field))]
    for field in ("prompts", "tokens", "backend", "dtype", "device", "revision"):
        if getattr(spec, field) != ComparisonSpec.model_fields[field].default:
            flags += [f"--{field}", str(getattr(spec, field))]
    for field in ("allow_extrapolation", "trust_remote_code"):
        if getattr(spec, field):
            flags.append(f"--{field.replace('_', '-')}")
    return flags
