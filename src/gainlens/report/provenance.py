"""A spec -> the command that asks for it."""

import shlex

from gainlens.core.presets import PRESETS
from gainlens.core.spec import ComparisonSpec, ModelSpec, Rule

_SCRIPT = "python scripts/compare.py"


def command_of(spec: ComparisonSpec) -> str | None:
    """The command whose flags give this spec; None where only the library can say it.

    Where the run was written (--out, --figures) is no part of a spec.
    """
    models, interventions = _model_flags(spec.models), _intervention_flags(spec)
    if models is None or interventions is None or spec.rule != _expressible(spec.rule):
        return None
    words = (*models, *_other_flags(spec), *interventions)
    return " ".join([_SCRIPT, *(shlex.quote(word) for word in words)])


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


def _intervention_flags(spec: ComparisonSpec) -> list[str] | None:
    fields = ComparisonSpec.model_fields
    extra = (spec.sweep_how, spec.sweep_heads, spec.ablate, spec.controls)
    if (spec.sweep, spec.theta, *extra) == (0, (), fields["sweep_how"].default, False, (), False):
        return ["--no-interventions"]
    if spec.sweep == 0 or spec.theta == ():
        return None
    flags = [] if spec.sweep == fields["sweep"].default else ["--sweep", str(spec.sweep)]
    if spec.sweep_how != fields["sweep_how"].default:
        flags += [word for how in spec.sweep_how for word in ("--sweep-how", how)]
    flags += ["--sweep-heads"] if spec.sweep_heads else []
    flags += ["--controls"] if spec.controls else []
    flags += [word for theta in spec.theta or () for word in ("--theta", str(theta))]
    return flags + [word for one in spec.ablate for word in ("--ablate", f"{one.site}={one.how}")]
