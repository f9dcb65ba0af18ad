"""Measure the next-token loss in nats without holding the logits of all tokens at once."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gainlens.activations.batches import Batch, batches, run_halving
from gainlens.models.encoding import Prompts, encode_for
from gainlens.models.hooks import reading
from gainlens.models.loaded import AnyModel, module_of
from gainlens.models.processes import gathered
from gainlens.models.sites import ModelSites, sites_of
from gainlens.records.inputs import EncodedPrompts

CHUNK_LOGITS = {"cpu": 1 << 19, "cuda": 1 << 26}
"""Logits held at once, elements, by device type.  2 MiB in float32 stay in a CPU's cache, which was
twice as fast as 64 MiB; a GPU wants few large kernels."""
CHUNK_TOKENS = 128
"""Least number of tokens per slice, since each slice reads all of W_U."""
_CHECK_TOKENS = 8
_CHECK_TOLERANCE = 0.02
"""Share of the largest |logit|.  bfloat16 rounds to 2^-8; the check must catch a factor."""


class Readout:
    """Apply the final norm and the unembedding of a model to slices of tokens."""

    def __init__(self, model: AnyModel, sites: ModelSites) -> None:
        self._sites = sites
        self._cap = _soft_cap(module_of(model))

    def check(self, prompts: EncodedPrompts) -> None:
        """Raise ValueError if the model scales its logits, as Granite and Cohere do."""
        tokens = torch.from_numpy(prompts.tokens[0][:_CHECK_TOKENS])[None].to(self._sites.device)
        streams: list[Tensor] = []
        last = self._sites.site(f"blocks.{self._sites.num_blocks - 1}.hook_resid_post")
        with torch.no_grad(), reading([(last, streams.append)]):
            wanted = self._sites.logits(tokens)[0].float()
        with torch.no_grad():
            got = self._logits(self.normed(streams[0])[0]).to(wanted.device)
        if not (got - wanted).abs().max() <= _CHECK_TOLERANCE * wanted.abs().max():
            raise ValueError(
                f"this {self._sites.kind} model does more to its logits than a final norm, an "
                "unembedding and a soft cap, so its loss cannot be taken in slices of tokens"
            )

    def normed(self, stream: Tensor) -> Tensor:
        """Return the last block's output after the final norm, [batch, position, d_model]."""
        return self._sites.final_norm(stream)

    def _logits(self, normed: Tensor) -> Tensor:
        logits = self._sites.unembed(normed[None])[0].to(normed.device).float()
        return logits if self._cap is None else self._cap * torch.tanh(logits / self._cap)

    def losses(
        self,
        normed: Float[Tensor, "batch position d_model"],
        tokens: Int[Tensor, "batch position"],
        lengths: Int[Tensor, " batch"],
    ) -> Float[Tensor, "batch prediction"]:
        """Return -ln p(next token) at every position but the last; nats, NaN in the padding."""
        predicts = torch.arange(1, tokens.shape[1]) < lengths[:, None]
        predicts = predicts.to(normed.device)
        flat = normed[:, :-1][predicts]
        following = tokens[:, 1:].to(normed.device)[predicts]
        step = max(CHUNK_TOKENS, CHUNK_LOGITS.get(flat.device.type, 1 << 24) // self._vocabulary)
        pieces = [
            cross_entropy(self._logits(part), target, reduction="none")
            for part, target in zip(flat.split(step), following.split(step), strict=True)
        ]
        losses = torch.full(predicts.shape, torch.nan, device=normed.device)
        losses[predicts] = torch.cat(pieces)
        return losses

    @property
    def _vocabulary(self) -> int:
        shapes = [max(weight.shape) for weight in self._sites.unembed.parameters()]
        return max(shapes, default=1 << 15)


def _soft_cap(model: nn.Module) -> float | None:
    """Return the bound of the logits (Gemma 2), None without one.

    HookedTransformer writes -1 for no bound, Hugging Face None.
    """
    either: Any = model
    if hasattr(either, "cfg") and hasattr(either.cfg, "output_logits_soft_cap"):
        cap = either.cfg.output_logits_soft_cap
    else:
        hf_model = getattr(either, "original_model", either)
        cap = getattr(hf_model.config.get_text_config(), "final_logit_softcapping", None)
    return cap if cap is not None and cap > 0 else None


def loss(
    model: AnyModel, prompts: Prompts, *, batch_tokens: int | None = None
) -> Float64[np.ndarray, " prompt"]:
    """Return the mean next-token loss of each prompt in nats; NaN for a prompt of one token.

    Each token but the first is predicted from all before it.  Works within `ablate` and the RoPE
    interventions.

    Args:
        model: from `load` or `wrap`, or a bare model.
        prompts: a text, a list of texts, token ids [batch, position], or what `encode_for` returns.
        batch_tokens: prompts of like length run together, up to this many tokens; None:
            BATCH_TOKENS of the device.

    Raises ValueError if the model does more to its logits than a soft cap.

    Examples:
        >>> gainlens.loss(loaded.model, prompts).shape
        (2,)
    """
    prompts = encode_for(model, prompts)
    sites = sites_of(model)
    readout = Readout(model, sites)
    readout.check(prompts)
    means: dict[int, float] = {}
    streams: list[Tensor] = []
    last = sites.site(f"blocks.{sites.num_blocks - 1}.hook_resid_post")

    def run(batch: Batch) -> None:
        streams.clear()
        sites.run(batch.tokens)
        losses = readout.losses(readout.normed(streams[0]), batch.tokens, batch.lengths)
        for index, length, row in zip(batch.index, batch.lengths.tolist(), losses, strict=True):
            if length > 1:
                means[index] = float(row[: length - 1].double().mean())

    with torch.no_grad(), reading([(last, streams.append)]):
        for batch in batches(model, prompts, sites, batch_tokens):
            run_halving(batch, run)
    by_prompt = np.full(len(prompts.tokens), np.nan)
    for index, mean in gathered(means).items():
        by_prompt[index] = mean
    return by_prompt
