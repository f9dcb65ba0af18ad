"""How a row of tokens is cut into sequences."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Segment(NamedTuple):
    """A run of tokens that is cut into sequences of one length."""

    first: int
    tokens: int
    context: int


@dataclass(frozen=True)
class Layout:
    """How a row of tokens is cut into sequences."""

    segments: tuple[Segment, ...]

    @classmethod
    def of(cls, contexts: tuple[int, ...], tokens: int) -> "Layout":
        """Pieces of `tokens` tokens, each cut into sequences of its context; equal neighbours are
        joined. ValueError if a context does not divide its piece."""
        segments: list[Segment] = []
        for number, context in enumerate(contexts):
            if tokens % context:
                raise ValueError(f"sequences of {context} tokens do not fill {tokens} tokens.")
            if segments and segments[-1].context == context:
                last = segments.pop()
                segments.append(Segment(last.first, last.tokens + tokens, context))
            else:
                segments.append(Segment(number * tokens, tokens, context))
        return cls(tuple(segments))

    @property
    def positions(self) -> Tensor:
        """Every token's position in its sequence, [token]."""
        parts = [torch.arange(part.tokens) % part.context for part in self.segments]
        return torch.cat(parts)

    @property
    def sequences(self) -> int:
        return sum(part.tokens // part.context for part in self.segments)
