"""Texts -> one model's token ids, with exactly one BOS where the tokenizer adds one.

A tokenizer is whatever answers like a Hugging Face one: transformers is not imported here.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from gainlens.prompts.texts import Prompt, PromptSet
from gainlens.records.inputs import EncodedPrompts

MIN_TOKENS: Final = 2
"""Position 0 is a class of its own, so a prompt of one token says nothing about ordinary tokens."""

TokenIds = Int64[np.ndarray, " _"]  # an unnamed axis: prompts differ in length


@runtime_checkable  # beartype checks it in tests
class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used here."""

    @property
    def bos_token_id(self) -> int | None: ...
    @property
    def unk_token_id(self) -> int | None: ...
    def __call__(self, text: str, *, verbose: bool) -> Any:
        """`.input_ids` of the answer are the token ids of one text, special tokens included."""


def encode(
    prompts: PromptSet,
    tokenizer: Tokenizer,
    *,
    context: int | None,
    tokens: int | None,
    allow_extrapolation: bool,
    vocab_size: int,
) -> EncodedPrompts:
    """Token ids of every prompt for one model.

    Args:
        prompts: from `load_prompts`.
        tokenizer: Hugging Face's, or what answers like it.
        context: built-in prompts are cut to so many tokens, a user's longer ones refused; None:
            unknown.
        tokens: prompts of exactly so many tokens, BOS included, cut or packed with their followers.
        allow_extrapolation: a prompt beyond the context is let through.
        vocab_size: rows of the model's embedding; an id beyond them is refused.

    The BOS is there iff the tokenizer's own encoding of a text begins with it.  Raises ValueError
    for what cannot be measured, naming the prompt and the flag that helps.  `encode_for` fills in
    what a loaded model knows.
    """
    _check_tokens(tokens, context, allow_extrapolation)
    adds_bos = _adds_bos(tokenizer)

    def tokenise(prompt: Prompt) -> TokenIds:
        ids = np.asarray(tokenizer(prompt.text, verbose=False).input_ids, dtype=np.int64)
        _check_ids(prompt.id, ids, tokenizer, adds_bos, vocab_size)
        return ids

    encoded, left_out = _usable(prompts, tokenise, tokenizer.unk_token_id, adds_bos)
    if tokens is not None:
        rows, short = _pack(encoded, tokens, tokenise)
        left_out += short
    elif prompts.built_in or allow_extrapolation:
        rows = encoded
    else:
        rows = _within_context(encoded, context)
    if not rows:
        raise ValueError(_nothing_left(prompts, tokens, left_out))
    limit = tokens or (context if prompts.built_in else None)
    return EncodedPrompts(
        source=prompts.name,
        sha256=prompts.sha256,
        ids=tuple(prompt.id for prompt, _ in rows),
        tokens=tuple(ids[:limit] for _, ids in rows),
        bos=adds_bos,
        cut=sum(limit is not None and len(ids) > limit for _, ids in rows),
        left_out=tuple(left_out),
        note=prompts.note,
        groups=_groups([prompt for prompt, _ in rows]),
    )


def _groups(prompts: Sequence[Prompt]) -> tuple[str, ...]:
    """Return each prompt's group, or nothing if no prompt has one."""
    groups = tuple(prompt.group for prompt in prompts)
    return groups if any(groups) else ()


def _check_tokens(tokens: int | None, context: int | None, allow_extrapolation: bool) -> None:
    if tokens is None:
        return
    if tokens < MIN_TOKENS:
        raise ValueError(f"--tokens {tokens} is too short: at least {MIN_TOKENS} are needed")
    if context is not None and tokens > context and not allow_extrapolation:
        raise ValueError(
            f"--tokens {tokens} is beyond the {context} tokens that the model was made for: "
            f"take --tokens {context} or fewer, or allow it with --allow-extrapolation"
        )


def _adds_bos(tokenizer: Tokenizer) -> bool:
    """Qwen2 has no BOS, GPT-2 has one and does not prepend it: its training did neither."""
    bos = tokenizer.bos_token_id
    first, *rest = tokenizer("x", verbose=False).input_ids
    if bos is not None and first == bos and rest[:1] == [bos]:
        raise ValueError("the tokenizer prepends BOS twice: remove one from its post-processor")
    return first == bos


def _check_ids(
    name: str, ids: TokenIds, tokenizer: Tokenizer, adds_bos: bool, vocab_size: int
) -> None:
    """Exactly one BOS or none, and every id a row of the embedding."""
    if ids.size and ids.max() >= vocab_size:
        raise ValueError(
            f"prompt {name!r} has token id {ids.max()}, and the model's embedding has {vocab_size} "
            "rows: tokenizer and weights do not belong together; take the tokenizer saved with them"
        )
    count = int(np.count_nonzero(ids == tokenizer.bos_token_id))
    if count > adds_bos:
        raise ValueError(
            f"prompt {name!r} spells out the BOS token, and its encoding has {count} where "
            f"{int(adds_bos)} is right (the tokenizer adds its own if it uses one): "
            "remove it from the text"
        )


def _usable(
    prompts: PromptSet, tokenise: Callable[[Prompt], TokenIds], unk: int | None, adds_bos: bool
) -> tuple[list[tuple[Prompt, TokenIds]], list[str]]:
    """Prompts with their ids, and what a built-in set has to leave out; a user is told instead."""
    encoded: list[tuple[Prompt, TokenIds]] = []
    left_out: list[str] = []
    for prompt in prompts.prompts:
        ids = tokenise(prompt)
        if len(ids) < MIN_TOKENS:
            fault = f"has {len(ids)} token in all and at least {MIN_TOKENS} are needed"
        elif unk is not None and np.all(ids[int(adds_bos) :] == unk):
            fault = "is nothing but unknown tokens to this tokenizer"
        else:
            encoded.append((prompt, ids))
            continue
        if not prompts.built_in:
            raise ValueError(f"prompt {prompt.id!r} of {prompts.name!r} {fault}; remove it")
        left_out.append(f"{prompt.id}: {fault}")
    return encoded, left_out


def _within_context(
    encoded: Sequence[tuple[Prompt, TokenIds]], context: int | None
) -> list[tuple[Prompt, TokenIds]]:
    """A user's own text is never cut unasked."""
    for prompt, ids in encoded:
        if context is not None and len(ids) > context:
            raise ValueError(
                f"prompt {prompt.id!r} has {len(ids)} tokens and the model was made for {context}: "
                f"cut every prompt with --tokens {context}, or allow it with --allow-extrapolation"
            )
    return list(encoded)


def _pack(
    encoded: Sequence[tuple[Prompt, TokenIds]], tokens: int, tokenise: Callable[[Prompt], TokenIds]
) -> tuple[list[tuple[Prompt, TokenIds]], list[str]]:
    """Rows of at least `tokens` ids, each text used once and in order; and what did not suffice."""
    rows: list[tuple[Prompt, TokenIds]] = []
    group: list[Prompt] = []
    length = 0
    for prompt, ids in encoded:
        group.append(prompt)
        length += len(ids)
        if length < tokens and prompt is not encoded[-1][0]:
            continue
        if len(group) > 1:  # joined, a text can have more tokens (blank lines) or fewer (one BOS)
            ids = tokenise(_joined(group))
            length = len(ids)
        if length >= tokens:
            rows.append((_joined(group), ids))
            group, length = [], 0
    if not group:
        return rows, []
    return rows, [f"{_joined(group).id}: {length} tokens in all, fewer than the {tokens} asked for"]


def _joined(group: Sequence[Prompt]) -> Prompt:
    """Texts separated by a blank line, under the first's and the last's name."""
    if len(group) == 1:
        return group[0]
    name = f"{group[0].id}..{group[-1].id}"
    kinds = {prompt.group for prompt in group}
    text = "\n\n".join(prompt.text for prompt in group)
    return Prompt(name, text, kinds.pop() if len(kinds) == 1 else "")


def _nothing_left(prompts: PromptSet, tokens: int | None, left_out: Sequence[str]) -> str:
    reasons = "; ".join(left_out[:3])
    if tokens is None:
        return f"no prompt of {prompts.name!r} can be used ({reasons}): take another --prompts"
    return f"no prompt of {prompts.name!r} reaches --tokens {tokens} ({reasons}): " + (
        "ask for fewer" if prompts.name == "long" else "take --prompts long, or ask for fewer"
    )
