"""Check a model at load, on one short prompt.

Is every block additive?  Are states independent of later tokens?  Are the logits Hugging Face's?
"""

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from gainlens.core.vocabulary import UNIT_ROUNDOFF
from gainlens.models.hooks import reading
from gainlens.models.loaded import BLOCK_SITES, ModelSites
from gainlens.models.memory import first_line, ran_out
from gainlens.models.refusals import Refusal

CHECK_PROMPT: Final = "The quick brown fox jumps over the lazy dog."
_CHECK_LENGTH: Final = 12
_KL_LIMIT: Final = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 2e-3}
"""Largest KL over tokens from Hugging Face's logits, nats."""
_STATE_LIMIT: Final = {"float32": 1e-3, "bfloat16": 3e-2, "float16": 1e-2}
"""How far a state may move with the prompt's length or the back end, of its norm: other orders of
the same sums move it by 1e-6 in float32 and by 1e-2 in bfloat16."""


def check_tokens(source: str, tokenizer: Any, d_vocab: int) -> Tensor:
    """Return the short prompt of the checks as token ids [1, position].

    Without a tokenizer they are ids spread over the vocabulary.  Raises ValueError if the tokenizer
    gives an id beyond the embedding.
    """
    if tokenizer is None:
        return torch.linspace(0, d_vocab - 1, min(_CHECK_LENGTH, d_vocab)).long()[None]
    tokens = torch.tensor([tokenizer(CHECK_PROMPT).input_ids])
    if int(tokens.max()) >= d_vocab:
        raise ValueError(
            f"the tokenizer of {source} gives token id {int(tokens.max())}, and the model's "
            f"embedding has {d_vocab} rows: they do not belong together; take the "
            "tokenizer that was saved with the weights"
        )
    return tokens


def check_additivity(model: nn.Module, sites: ModelSites, tokens: Tensor, dtype: str) -> float:
    """Return the largest |x+a+m-y| / (|x|+|a|+|m|+|y|) over blocks and tokens.

    It is relative to the sum of norms, because |y| alone is small where a block erases a massive
    token.  Raises ValueError if it is beyond twice the dtype's unit roundoff, if the model fails on
    the tokens, if a site stays silent, or if an activation has another shape than the stream.
    """
    worst = _Worst()
    wanted = [(block, name) for block in range(sites.num_blocks) for name in BLOCK_SITES]
    absent = [key for key in map(_site_name, wanted) if key not in sites.sites]
    if absent:
        raise Refusal(
            f"this {_name(model)} has no {absent[0]}, so its blocks cannot be taken apart"
        )
    readers = [(sites.site(_site_name(place)), partial(worst.read, *place)) for place in wanted]
    with torch.no_grad(), reading(readers), no_traceback(model):
        sites.run(tokens)
    limit = 2 * UNIT_ROUNDOFF[dtype]
    silent = [site.name for site, _ in readers if site.name not in worst.fired]
    if silent:
        raise Refusal(
            f"no activation passed at {silent[0]} of this {_name(model)}, so its blocks "
            "cannot be taken apart"
        )
    if worst.broken is not None:
        what = "its weights are broken: fetch them again"
        if dtype == "float16":
            what = "float16 overflows beyond 65,504: measure in bfloat16 or float32 (--dtype)"
        raise ValueError(
            f"{worst.broken} of this {_name(model)} is not finite on a short prompt; {what}"
        )
    if not worst.value <= limit:
        raise Refusal(
            f"block {worst.block} of this {_name(model)} is not additive: |x+a+m-y| is "
            f"{worst.value:.2g} of |x|+|a|+|m|+|y| where {dtype} allows {limit:.2g}, so what "
            "hook_attn_out and hook_mlp_out show is not what the block adds, and no gain can be "
            "split (some models scale what they add)"
        )
    return worst.value


def check_causal(sites: ModelSites, tokens: Tensor, dtype: str) -> None:
    """Raise ValueError if a state depends on a later token.

    The prompt is run with and without its last token, both of a length at which RoPE is the same.
    The last block's output at the positions
    that both have is compared, relative to its norm: the median over positions, because rounding
    can send a single token to another expert.
    """
    lengths = range(tokens.shape[1], 1, -1)
    alike = (n for n in lengths if sites.alike(n) == sites.alike(n - 1))
    length = next(alike, 0)  # dynamic RoPE turns with the length beyond its own context
    if not length:
        return
    tokens = tokens[:, :length]
    states: list[Tensor] = []
    last = sites.site(f"blocks.{sites.num_blocks - 1}.{BLOCK_SITES[-1]}")
    with torch.no_grad(), reading([(last, states.append)]):
        for prompt in (tokens, tokens[:, :-1]):
            sites.run(prompt)
    moved = _moved(*(state[:, : tokens.shape[1] - 1] for state in states))
    if not moved <= _STATE_LIMIT[dtype]:
        raise Refusal(
            f"this {sites.kind} model is not causal: without the prompt's last token its earlier "
            f"states move by {moved:.2g} of their norm, and gainlens measures decoders whose "
            "states do not depend on later tokens"
        )


@contextmanager
def no_traceback(model: nn.Module) -> Generator[None]:
    """Turn whatever the checks of a model stumble over into one sentence."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError) or ran_out(error):
            raise
        raise Refusal(
            f"this {_name(model)} fails on a short prompt ({type(error).__name__}: "
            f"{first_line(error)})"
        ) from error


def _name(model: Any) -> str:
    """Return the class of a model, and what it is wrapped around."""
    inner = getattr(model, "original_model", None)
    return type(model).__name__ + (f" of a {type(inner).__name__}" if inner is not None else "")


def _site_name(place: tuple[int, str]) -> str:
    return f"blocks.{place[0]}.{place[1]}"


class _Worst:
    """Find the least additive block of one forward pass."""

    def __init__(self) -> None:
        self.value, self.block = 0.0, 0
        self.fired: set[str] = set()
        self.broken: str | None = None
        """the first site, in the order of computation, that is not finite"""
        self._open: dict[str, Tensor] = {}
        self._stream: tuple[int, ...] = ()

    def read(self, block: int, name: str, tensor: Tensor) -> None:
        if name == BLOCK_SITES[0]:
            self._stream = tensor.shape
        elif tensor.shape != self._stream:
            raise Refusal(
                f"blocks.{block}.{name} has the shape {list(tensor.shape)} and the stream "
                f"{list(self._stream)}, so it is not what the block adds"
            )
        self._open[name] = tensor.float()
        self.fired.add(f"blocks.{block}.{name}")
        if self.broken is None and not bool(tensor.isfinite().all()):
            self.broken = f"blocks.{block}.{name}"
        if name == BLOCK_SITES[-1]:
            if len(self._open) == len(BLOCK_SITES):
                self._close(block)
            self._open.clear()

    def _close(self, block: int) -> None:
        y = self._open[BLOCK_SITES[-1]]
        x, a, m = (self._open[name].to(y.device) for name in BLOCK_SITES[:3])
        size = sum(part.norm(dim=-1) for part in (x, a, m, y))
        error = float(((x + a + m - y).norm(dim=-1) / size).max())
        if not error <= self.value:
            self.value, self.block = error, block


class Plain(NamedTuple):
    """Hold what the Hugging Face model gives on the short prompt."""

    logits: Tensor
    final: Tensor
    """what leaves the final norm, [1, position, d_model]"""


def plain_outputs(hf_model: Any, tokens: Tensor) -> Plain:
    """Run the Hugging Face model on the short prompt."""
    with torch.no_grad():
        found = hf_model(tokens, use_cache=False, return_dict=True, output_hidden_states=True)
    return Plain(found.logits, found.hidden_states[-1])


def check_outputs(sites: ModelSites, plain: Plain, tokens: Tensor, dtype: str) -> float:
    """Return the largest KL(Hugging Face's logits || model's) over tokens, nats.

    Raises ValueError if it is beyond the dtype's limit, or if what leaves the final norm is not
    Hugging Face's: logits that are scaled down (Cohere) would hide that.
    """
    states: list[Tensor] = []
    with torch.no_grad(), reading([(sites.site("ln_final"), states.append)]):
        got = sites.logits(tokens).double().log_softmax(-1)
    want = plain.logits.double().log_softmax(-1)
    divergence = float((want.exp() * (want - got)).sum(-1).max())
    moved = _moved(states[-1], plain.final)  # NanoChat norms its embeddings by the same module
    if not (divergence <= _KL_LIMIT[dtype] and moved <= _STATE_LIMIT[dtype]):
        raise Refusal(
            f"the {sites.kind} model is not Hugging Face's: logits differ by {divergence:.2g} nats "
            f"(KL; {dtype} allows {_KL_LIMIT[dtype]:.2g}) and final states by {moved:.2g} of their "
            f"norm ({_STATE_LIMIT[dtype]:.2g}), so TransformerLens' conversion does not fit this "
            "checkpoint"
        )
    return max(divergence, 0.0)


def _moved(states: Tensor, others: Tensor) -> float:
    """Return how far states are from others, of their norm: the median over positions."""
    distance = (states.double() - others.double()).norm(dim=-1)
    return float((distance / states.double().norm(dim=-1).clamp_min(1e-30)).median())
