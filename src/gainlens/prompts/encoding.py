"""Encode texts as one model's token ids, with exactly one BOS in front if the tokenizer adds one.

The id alone does not show a BOS, its position does: GPT-2's BOS is its EOS too, and ChatML's begins
every turn.  transformers is not imported here; a tokenizer is anything that works like one of its.
"""

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from gainlens.prompts.texts import Prompt, PromptSet
from gainlens.records.inputs import EncodedPrompts

MIN_PROMPTS: Final = 2
"""With one prompt it is not known which of its tokens every prompt would share."""
MIN_TOKENS: Final = 2
"""Position 0 is a class of its own, so a prompt of one token says nothing about ordinary tokens."""
_NAMED: Final = 6
"""Most tokens that a note names."""

TokenIds = Int64[np.ndarray, " _"]  # an unnamed axis: prompts differ in length


@runtime_checkable  # beartype checks it in tests
class Tokenizer(Protocol):
    """Describe the part of a Hugging Face tokenizer that is used here."""

    @property
    def bos_token_id(self) -> int | None: ...
    @property
    def unk_token_id(self) -> int | None: ...
    def __call__(self, text: str, *, verbose: bool) -> Any:
        """Return the encoding of one text; its `input_ids` include special tokens."""


class Frame(NamedTuple):
    """Hold what a tokenizer puts around every text."""

    start: tuple[int, ...]
    """BOS in most models; [gMASK] and <sop> in GLM"""
    end: tuple[int, ...]
    """EOS in some models, else nothing"""


def encode(
    prompts: PromptSet,
    tokenizer: Tokenizer,
    *,
    context: int | None,
    tokens: int | None,
    allow_extrapolation: bool,
    vocab_size: int,
) -> EncodedPrompts:
    """Return the token ids of every prompt for one model.

    Args:
        prompts: from `load_prompts`.
        tokenizer: Hugging Face's, or what answers like it.
        context: tokens that the model was made for; None: unknown.  Built-in prompts are cut to it,
            a user's longer prompts are refused.
        tokens: cut or join prompts to exactly this many tokens, BOS included.
        allow_extrapolation: accept prompts beyond the context.
        vocab_size: rows of the model's embedding; an id beyond them is refused.

    BOS, EOS and other tokens that the tokenizer adds are measured like the text's, and `note` says
    where they are.  Tokens that begin every prompt alike (`prefix_of`) are classed with position 0.
    Raises ValueError, with the prompt and the flag that helps, if a prompt cannot be measured.
    `encode_for` takes these arguments from a loaded model.
    """
    _check_tokens(tokens, context, allow_extrapolation)
    frame = frame_of(tokenizer)

    def tokenise(prompt: Prompt) -> TokenIds:
        ids = np.asarray(tokenizer(prompt.text, verbose=False).input_ids, dtype=np.int64)
        _check_ids(prompt.id, ids, tokenizer.bos_token_id, frame, vocab_size)
        return ids

    encoded, left_out = _usable(prompts, tokenise, tokenizer.unk_token_id, frame)
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
    cut = tuple(ids[:limit] for _, ids in rows)
    prefix = prefix_of(cut, tokenizer, frame)
    notes = (prompts.note, *_notes(cut, tokenizer, frame, prefix))
    first = frame.start[0] if frame.start else tokenizer.bos_token_id
    return EncodedPrompts(
        source=prompts.name,
        sha256=prompts.sha256,
        ids=tuple(prompt.id for prompt, _ in rows),
        tokens=cut,
        bos=all(ids[0] == first for ids in cut),
        cut=sum(limit is not None and len(ids) > limit for _, ids in rows),
        left_out=tuple(left_out),
        note="; ".join(filter(None, notes)),
        groups=_groups([prompt for prompt, _ in rows]),
        prefix=prefix,
    )


def prefix_of(rows: Sequence[TokenIds], tokenizer: Tokenizer, frame: Frame) -> int:
    """Return how many tokens begin every prompt alike and are no text; at least 1.

    They are what the tokenizer puts in front of every text.  If the tokens after it that all
    prompts share hold a special token, they are a chat template's and count too.  Each prompt keeps
    one token at least.
    """
    shared = 0 if len(rows) < MIN_PROMPTS else _shared(rows)
    special = set(getattr(tokenizer, "all_special_ids", ()))
    template = special & set(rows[0][len(frame.start) : shared].tolist())
    return max(1, min(shared if template else len(frame.start), min(map(len, rows)) - 1))


def _shared(rows: Sequence[TokenIds]) -> int:
    """Return how many leading tokens all prompts share."""
    columns = zip(*rows, strict=False)
    return len(list(takewhile(lambda column: len(set(column)) == 1, columns)))


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


def frame_of(tokenizer: Tokenizer) -> Frame:
    """Return what a tokenizer puts around every text, which is its encoding of an empty text.

    Qwen2 has no BOS.  GPT-2 has one and does not prepend it, as in its training.  Raises ValueError
    if the tokenizer prepends BOS twice.
    """
    empty, letter = (list(tokenizer(text, verbose=False).input_ids) for text in ("", "x"))
    same = takewhile(lambda pair: pair[0] == pair[1], zip(empty, letter, strict=False))
    size = len(list(same))
    frame = Frame(tuple(empty[:size]), tuple(empty[size:]))
    bos = tokenizer.bos_token_id
    if bos is not None and frame.start[:2] == (bos, bos):
        raise ValueError("the tokenizer prepends BOS twice: remove one from its post-processor")
    return frame


def _check_ids(name: str, ids: TokenIds, bos: int | None, frame: Frame, vocab_size: int) -> None:
    """Raise ValueError for an id beyond the embedding, or for two BOS in front."""
    if ids.size and ids.max() >= vocab_size:
        raise ValueError(
            f"prompt {name!r} has token id {ids.max()}, and the model's embedding has {vocab_size} "
            "rows: tokenizer and weights do not belong together; take the tokenizer saved with them"
        )
    if bos in frame.start and ids[len(frame.start) :][:1].tolist() == [bos]:
        raise ValueError(
            f"prompt {name!r} spells out the BOS token that the tokenizer puts in front, so there "
            "are two: remove it from the text"
        )


def _notes(rows: Sequence[TokenIds], tokenizer: Tokenizer, frame: Frame, prefix: int) -> list[str]:
    """Say which special tokens the prompts hold beside one BOS that the tokenizer puts in front."""
    bos, count, notes = tokenizer.bos_token_id, len(rows), list[str]()
    if prefix > 1:
        who = "the tokenizer puts" if prefix == len(frame.start) else "a chat template puts"
        notes.append(
            f"{who} {_named(rows[0][:prefix].tolist(), tokenizer)} in front of every prompt, and "
            f"these {prefix} tokens are classed with position 0"
        )
    ended = sum(tuple(ids[-len(frame.end) :]) == frame.end for ids in rows) if frame.end else 0
    if ended:
        notes.append(
            f"the tokenizer ends {ended} of {count} prompts with {_named(frame.end, tokenizer)}, "
            "which is their last token"
        )
    begun = sum(not frame.start and ids[0] == bos for ids in rows)
    if begun:
        notes.append(f"{begun} of {count} prompts begin with a BOS token of their own text")
    inner = sum(bos in ids[max(len(frame.start), 1) : len(ids) - len(frame.end)] for ids in rows)
    if inner:
        notes.append(
            f"{inner} of {count} prompts hold the BOS token {_named([bos], tokenizer)} after their "
            "first position too, where it is measured as any other token"
        )
    return notes


def _named(ids: Sequence[int | None], tokenizer: Tokenizer) -> str:
    """Return the tokens' names, of at most six."""
    convert = getattr(tokenizer, "convert_ids_to_tokens", None)
    some = list(ids[:_NAMED])
    names = [f"token {each}" for each in some] if convert is None else convert(some)
    return " ".join(map(str, names)) + (" ..." if len(ids) > _NAMED else "")


def _usable(
    prompts: PromptSet, tokenise: Callable[[Prompt], TokenIds], unk: int | None, frame: Frame
) -> tuple[list[tuple[Prompt, TokenIds]], list[str]]:
    """Return the usable prompts with their ids, and why others of a built-in set are left out.

    Raises ValueError for an unusable prompt of a user's own set.
    """
    encoded: list[tuple[Prompt, TokenIds]] = []
    left_out: list[str] = []
    least = max(MIN_TOKENS, len(frame.start) + len(frame.end) + 1)
    for prompt in prompts.prompts:
        ids = tokenise(prompt)
        if len(ids) < least:
            fault = f"has {len(ids)} token in all and at least {least} are needed"
        elif unk is not None and np.all(ids[len(frame.start) : len(ids) - len(frame.end)] == unk):
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
    """Return the prompts, or raise ValueError: a user's text is not cut without being asked."""
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
    """Return rows of at least `tokens` ids, each text used once and in order, and what is left."""
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
    """Join texts by a blank line, under the names of the first and the last."""
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
