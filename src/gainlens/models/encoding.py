"""Turn whatever a user has as prompts into the token ids of one model."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from gainlens.models.config import context_of
from gainlens.models.loaded import AnyModel, LoadedModel
from gainlens.models.sites import config_of, sites_of
from gainlens.prompts.encoding import encode
from gainlens.prompts.texts import Prompt, PromptSet
from gainlens.records.inputs import EncodedPrompts

Prompts = str | Sequence[str] | PromptSet | Tensor | EncodedPrompts
"""One text, several, a set from `load_prompts`, token ids [batch, position], or encoded prompts."""


def encode_for(model: AnyModel, prompts: Prompts, *, tokens: int | None = None) -> EncodedPrompts:
    """Return prompts as token ids of one model, with exactly one BOS if its tokenizer adds one.

    Args:
        model: from `load` or `wrap`, or a bare model; texts need one that has a tokenizer.
        prompts: a text, a list of texts, a set from `load_prompts`, or token ids [batch, position]
            whose rows are complete prompts of one length.  Encoded prompts are returned as they
            are.
        tokens: make prompts of exactly so many tokens, cut or packed with the texts after them.

    Raises ValueError if a prompt does not fit the model's context or its vocabulary.

    Examples:
        >>> [len(ids) for ids in gainlens.encode_for(loaded, ["x = 1", "Hello, world."]).tokens]
        [4, 8]
    """
    if isinstance(prompts, EncodedPrompts):
        return prompts
    vocabulary = _rows(sites_of(model).embedding)
    if isinstance(prompts, Tensor):
        return _from_ids(prompts, vocabulary, _tokenizer(model))
    if not isinstance(prompts, PromptSet):
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        _check_texts(texts)
        named = tuple(Prompt(f"text-{number}", text) for number, text in enumerate(texts))
        prompts = PromptSet("given", built_in=False, prompts=named)
    tokenizer = _tokenizer(model)
    if tokenizer is None:
        raise ValueError(
            "this model has no tokenizer, so texts cannot be encoded: give "
            "gainlens.wrap(model, tokenizer), or token ids [batch, position]"
        )
    return encode(
        prompts,
        tokenizer,
        context=_context(model),
        tokens=tokens,
        allow_extrapolation=False,
        vocab_size=vocabulary,
    )


def _check_texts(texts: Sequence[object]) -> None:
    wrong = next((text for text in texts if not isinstance(text, str)), None)
    if wrong is not None or not texts:
        what = "an empty list" if wrong is None else f"a {type(wrong).__name__} among them"
        raise ValueError(
            f"prompts are a text, a list of texts, token ids [batch, position] or encoded prompts; "
            f"got {what}"
        )


def _from_ids(ids: Tensor, vocabulary: int, tokenizer: Any) -> EncodedPrompts:
    """Return rows of token ids as prompts; whether they begin with BOS is read from the ids."""
    if ids.ndim != 2 or ids.is_floating_point() or 0 in ids.shape:
        raise ValueError(
            f"token ids are integers [batch, position]; got {ids.dtype} {list(ids.shape)}"
        )
    if int(ids.min()) < 0 or int(ids.max()) >= vocabulary:
        raise ValueError(
            f"token ids are {int(ids.min())} to {int(ids.max())}, and the model's embedding has "
            f"{vocabulary} rows: take ids of this model's own tokenizer"
        )
    rows = ids.detach().cpu().numpy().astype(np.int64)
    bos = getattr(tokenizer, "bos_token_id", None)
    return EncodedPrompts(
        source="token ids",
        sha256=hashlib.sha256(rows.tobytes()).hexdigest(),
        ids=tuple(f"row-{number}" for number in range(len(rows))),
        tokens=tuple(rows),
        bos=bos is not None and bool((rows[:, 0] == bos).all()),
        cut=0,
        left_out=(),
    )


def _rows(embedding: Any) -> int:
    """Return the number of rows of an embedding: TransformerLens' is called W_E."""
    weight = getattr(embedding, "W_E", None)
    return int((embedding.weight if weight is None else weight).shape[0])


def _tokenizer(model: AnyModel) -> Any:
    return model.tokenizer if isinstance(model, LoadedModel) else getattr(model, "tokenizer", None)


def _context(model: AnyModel) -> int | None:
    if isinstance(model, LoadedModel):
        return model.checkpoint.context
    return context_of(config_of(model))
