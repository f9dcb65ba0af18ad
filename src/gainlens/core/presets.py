"""List the comparisons that are known by name, with their models."""

from collections.abc import Sequence

from gainlens.core.names import key_of
from gainlens.core.spec import ModelSpec
from gainlens.core.vocabulary import Role

TWIN_PREFIX = "gainlens:"
"""Prefix of a checkpoint that ships with the package, as in gainlens:context512-theta10k."""


def _twin(context: int, theta: float, role: Role) -> ModelSpec:
    name = f"context{context}-theta{theta / 1000:.0f}k"
    return ModelSpec(
        key=name,
        hf_name=TWIN_PREFIX + name,
        role=role,
        label=f"twin, context {context:,}, theta {theta:,.0f}",
        context_length=context,
        expected_rope_theta=theta,
        family="gainlens twins",
    )


_LLAMA_2 = ModelSpec(
    key="llama2-7b",
    hf_name="meta-llama/Llama-2-7b-hf",
    role="short",
    label="LLaMA 2",
    context_length=4096,
    expected_rope_theta=10_000,
    prediction="EXPAND (like Mistral)",
    family="LLaMA 2",
)
_LLAMA_31 = ModelSpec(
    key="llama3.1-8b",
    hf_name="meta-llama/Llama-3.1-8B",
    role="long",
    label="LLaMA 3.1",
    context_length=128_000,
    expected_rope_theta=500_000,
    prediction="CONTRACT (confirmed: 0.48x)",
    family="LLaMA 3.1",
)

PRESETS: dict[str, tuple[ModelSpec, ...]] = {
    "twins": (
        _twin(512, 1e4, "short"),
        _twin(4096, 5e5, "long"),
        _twin(512, 5e5, "control"),
        _twin(4096, 1e4, "control"),
    ),
    "llama": (
        _LLAMA_2,
        _LLAMA_31,
        ModelSpec(
            key="mistral-7b",
            hf_name="mistralai/Mistral-7B-v0.1",
            role="reference",
            label="Mistral",
            context_length=8192,
            expected_rope_theta=10_000,
            prediction="EXPAND (1.37x)",
            family="Mistral",
        ),
    ),
    "llama-context": (
        ModelSpec(
            key="llama3-8b",
            hf_name="meta-llama/Meta-Llama-3-8B",
            role="short",
            label="LLaMA 3",
            context_length=8192,
            expected_rope_theta=500_000,
            family="LLaMA 3",
        ),
        _LLAMA_31,
    ),
    "codellama": (
        _LLAMA_2,
        ModelSpec(
            key="codellama-7b",
            hf_name="codellama/CodeLlama-7b-hf",
            role="long",
            label="CodeLlama",
            context_length=16_384,
            expected_rope_theta=1_000_000,
            family="LLaMA 2",
        ),
    ),
}
"""`twins` ships with the package.  `llama` is the notebook's comparison with its own definitions.
`llama-context` holds theta and varies context; `codellama` holds the family and varies theta."""


def named_models(chosen: str | Sequence[str]) -> tuple[str, tuple[ModelSpec, ...]]:
    """Return the name and the models of a preset, or of one or two checkpoints of one's own.

    Args:
        chosen: a preset's name; a checkpoint (hub name, directory or GGUF file), beside which the
            first twin stands as the short model; or two checkpoints, the short one first.

    Raises ValueError if there are more than two checkpoints.
    """
    if isinstance(chosen, str) and chosen in PRESETS:
        return chosen, PRESETS[chosen]
    own = [chosen] if isinstance(chosen, str) else [*chosen]
    if len(own) > 2:
        raise ValueError(f"give a preset, one checkpoint or two; got {len(own)}")
    models = [PRESETS["twins"][0]] if len(own) == 1 else []
    roles: tuple[Role, Role] = ("short", "long")
    for source in own:
        key = key_of(source, [model.key for model in models])
        models.append(ModelSpec(key=key, hf_name=source, role=roles[len(models)]))
    return "-vs-".join(model.key for model in models), tuple(models)
