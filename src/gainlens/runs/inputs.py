"""Open every model of a run once, and encode the run's texts and the notebook's sentence for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gainlens.core.spec import ComparisonSpec, ModelSpec
from gainlens.models.config import context_of, rope_from_config, sizes_of
from gainlens.models.opening import OpenedModel, open_model
from gainlens.prompts.encoding import encode
from gainlens.prompts.texts import PromptSet, load_prompts
from gainlens.records.inputs import EncodedPrompts


@dataclass(frozen=True)
class ModelInputs:
    """Hold what one model is measured from, made once and passed on."""

    model: ModelSpec
    opened: OpenedModel
    prompts: EncodedPrompts
    sentence: EncodedPrompts
    """the notebook's one sentence"""

    @property
    def longest_prompt(self) -> int:
        """Return the number of tokens of the longest prompt."""
        return max(len(tokens) for tokens in self.prompts.tokens)

    @property
    def theta(self) -> float | None:
        """Return the RoPE base of the model's config; None if it has none."""
        return rope_from_config(self.opened.config).theta


def open_inputs(spec: ComparisonSpec) -> dict[str, ModelInputs]:
    """Open every model of a comparison and encode the same texts for each; keys are model keys.

    Built-in prompts are cut to the smallest context of all models.  Raises ValueError if a model
    cannot be opened or a text cannot be encoded.
    """
    opened = {
        model.key: open_model(
            model.hf_name, revision=spec.revision, trust_remote_code=spec.trust_remote_code
        )
        for model in spec.models
    }
    texts, sentence = load_prompts(spec.prompts, spec.long_prompts), load_prompts("notebook")
    contexts = {key: context_of(model.config) for key, model in opened.items()}
    smallest = min(context for context in contexts.values() if context is not None)
    inputs: dict[str, ModelInputs] = {}
    for model in spec.models:
        one = opened[model.key]
        context = smallest if texts.built_in else contexts[model.key]
        prompts = encode_for_opened(
            texts, one, context, tokens=spec.tokens, allow_extrapolation=spec.allow_extrapolation
        )
        inputs[model.key] = ModelInputs(
            model, one, prompts, encode_for_opened(sentence, one, contexts[model.key])
        )
    return inputs


def encode_for_opened(
    texts: PromptSet,
    opened: OpenedModel,
    context: int | None,
    *,
    tokens: int | None = None,
    allow_extrapolation: bool = False,
) -> EncodedPrompts:
    """Return the texts as one model's token ids; the arguments are those of `encode`."""
    return encode(
        texts,
        opened.tokenizer,
        context=context,
        tokens=tokens,
        allow_extrapolation=allow_extrapolation,
        vocab_size=sizes_of(opened.config).d_vocab,
    )


def thetas_to_swap(spec: ComparisonSpec, inputs: Mapping[str, ModelInputs]) -> tuple[float, ...]:
    """Return the RoPE bases under which every model is measured again.

    They are those that were asked for, else the short and the long model's own if both are known.
    """
    if spec.theta is not None:
        return spec.theta
    pair: Sequence[float | None] = [
        inputs[spec.model(role).key].theta for role in ("short", "long")
    ]
    known = [theta for theta in pair if theta is not None]
    return tuple(sorted(set(known))) if len(set(pair)) == 2 and len(known) == 2 else ()
