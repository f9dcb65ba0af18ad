"""Replace activations while a model runs, so that it shows what a component does."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from gainlens.activations.capturing import capture
from gainlens.core.messages import check_one_of
from gainlens.core.vocabulary import TOKEN_CLASSES, TokenClass
from gainlens.interventions.addresses import Address, address_of
from gainlens.interventions.replacements import (
    How,
    Replaced,
    Replacement,
    Rows,
    observe_reference,
    replacement_of,
)
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.massive import prompt_slices
from gainlens.models.hooks import scoped, writing
from gainlens.models.loaded import AnyModel
from gainlens.models.sites import ModelSites, sites_of
from gainlens.records.gains import Decomposition
from gainlens.records.inputs import EncodedPrompts

_NO_POSITIONS = ("hook_pattern", "hook_attn_scores", "hook_rot_q", "hook_rot_k", "_cos", "_sin")
"""Sites whose second axis is not the position on every back end."""


@contextmanager
def ablate(
    model: AnyModel,
    sites: Mapping[str, How],
    *,
    reference: EncodedPrompts | None = None,
    positions: Sequence[int] | None = None,
    token_class: TokenClass = "all",
    decomposition: Decomposition | None = None,
    seed: int = 0,
) -> Generator[None]:
    """Replace the activations at some sites for as long as the context is open.

        with gainlens.ablate(model, {"blocks.-1.hook_mlp_out": "zero"}):
            captured = gainlens.capture(model, prompts)

    This works with everything that runs the model, on every back end.  No hook stays behind,
    whatever is raised.  Hooks that the model had before stay, and run first.

    Args:
        model: from `load` or `wrap`, or a bare model.
        sites: the method for each site.  A site is a TransformerLens hook name with its block
            counted from the end if negative, a head of it (`blocks.3.attn.hook_z[2]`), or a head by
            its short name (`L3H2`).  A method is
            zero: 0 everywhere;
            mean: over the reference's tokens, one of position 0 and one of all others;
            resample: the same position of another reference prompt, chosen by `seed`;
            a TransformerLens hook function `(tensor, hook) -> tensor`, where `hook` has a name and
            a layer(); if it returns None, it changed the tensor in place.
        reference: prompts that mean and resample draw on, and whose token classes are known.
        positions: replace at these positions alone, counted from 0.
        token_class: replace at tokens of this class alone (bos on any prompt; massive and ordinary
            on prompts of the reference).
        decomposition: of the reference, for the token classes; None: measured on entry.
        seed: of resample.

    Several sites apply in the order of the mapping.  If contexts are nested, the inner one applies
    after the outer one, and its means and donors come from the model as the outer one changes it.

    Raises ValueError for an unknown site or method, for a hook function's result of another shape,
    and for a replacement that is not finite.  Raises ValueError on exit if the model ran and
    nothing was replaced at some site.

    Examples:
        >>> with gainlens.ablate(loaded.model, {"blocks.-1.hook_mlp_out": "zero"}):
        ...     silenced = gainlens.capture(loaded.model, prompts)
        >>> float(silenced.column("mm")[-1].max())
        0.0
    """
    model_sites = sites_of(model)
    rows = Rows(reference)
    where = _where(model, reference, positions, token_class, decomposition)
    replaced = replacements_of(model_sites, sites, reference, rows, where, seed)
    if reference is not None:
        observe_reference(model, model_sites, replaced, reference)
    writers = writers_of(replaced, where, rows)
    see = partial(model_sites.embedding.register_forward_pre_hook, rows.see, with_kwargs=True)
    with scoped([see]), writing([(writer.address.site, writer) for writer in writers]):
        yield
    for writer in writers:
        writer.check(rows.passes)


@dataclass(frozen=True)
class Where:
    """Say at which tokens a replacement holds."""

    positions: tuple[int, ...] | None = None
    token_class: TokenClass = "all"
    masks: tuple[np.ndarray, ...] = ()
    """per reference prompt, True at the positions of the class"""
    prefix: int = 1
    """tokens of class bos"""

    @property
    def everywhere(self) -> bool:
        """Return True if no token is left out."""
        return self.positions is None and self.token_class == "all"

    def mask(self, rows: Rows, tensor: Tensor) -> Tensor:
        """Return the mask [batch, position] of an activation [batch, position, ...]."""
        batch, length = tensor.shape[:2]
        chosen = np.ones((batch, length), dtype=bool)
        if self.token_class == "bos":
            chosen[:, self.prefix :] = False
        elif self.token_class != "all":
            chosen[:] = False
            for row, key in enumerate(rows.keys(tensor)):
                index = rows.prompt(key)
                if index is None:
                    raise ValueError(
                        f"row {row} of this batch is no prompt of the reference, so its "
                        f"{self.token_class} tokens are not known. Give `reference` the prompts "
                        "that the model is run on"
                    )
                of_prompt = self.masks[index][:length]
                chosen[row, : len(of_prompt)] = of_prompt
        if self.positions is not None:
            chosen &= np.isin(np.arange(length), self.positions)
        return torch.from_numpy(chosen).to(tensor.device)


class AblationWriter:
    """Put a replacement at its site, on the tokens where it holds, and check it."""

    def __init__(
        self, address: Address, replacement: Replacement, where: Where, rows: Rows
    ) -> None:
        self.address = address
        self._replacement, self._where, self._rows = replacement, where, rows
        self._fired = self._changed = False

    def __call__(self, tensor: Tensor) -> Tensor:
        self._fired = True
        part = self.address.part(tensor)
        new = self._replacement.replace(part)
        if not self._where.everywhere:
            mask = self._where.mask(self._rows, part)
            self._changed |= bool(mask.any())
            new = torch.where(mask.reshape(*mask.shape, *[1] * (part.dim() - 2)), new, part)
        broken = ~torch.isfinite(new) & torch.isfinite(part)
        if broken.any():
            index = tuple(broken.nonzero()[0].tolist())
            raise ValueError(
                f"the replacement at {self.address.name} is not finite at index {index} of "
                f"{tuple(part.shape)}, and the model's own activation is"
            )
        return self.address.put(tensor, new)

    def check(self, passes: int) -> None:
        """Raise ValueError if the model ran and nothing was replaced."""
        if not passes or (self._fired and (self._changed or self._where.everywhere)):
            return
        reason = (
            f"no {self._where.token_class} token passed at the wanted positions"
            if self._fired
            else "no activation passed there (some sites of HookedTransformer need a setting such "
            "as cfg.use_attn_result)"
        )
        raise ValueError(f"nothing was ablated at {self.address.name}: {reason}")


def replacements_of(
    model_sites: ModelSites,
    wanted: Mapping[str, How],
    reference: EncodedPrompts | None,
    rows: Rows,
    where: Where,
    seed: int = 0,
) -> list[Replaced]:
    """Find every site and its replacement, and check both before anything runs."""
    replaced: list[Replaced] = []
    for text, how in wanted.items():
        address = address_of(model_sites, text)
        if address.name in [other.name for other, _ in replaced]:
            raise ValueError(f"{address.name} is ablated twice in one mapping ({text}): nest them")
        replacement = replacement_of(how, address, rows, reference, seed)
        by_position = replacement.needs_reference or not where.everywhere
        if by_position and address.name.endswith(_NO_POSITIONS):
            raise ValueError(
                f"{address.name} has no position axis, so it cannot be ablated by mean, resample, "
                "position or token class. Give zero or a hook function, for all tokens"
            )
        replaced.append((address, replacement))
    return replaced


def writers_of(replaced: Sequence[Replaced], where: Where, rows: Rows) -> list[AblationWriter]:
    """Return one writer per site, after its replacement has observed the reference."""
    for _, replacement in replaced:
        replacement.check()
    return [AblationWriter(address, replacement, where, rows) for address, replacement in replaced]


def _where(
    model: AnyModel,
    reference: EncodedPrompts | None,
    positions: Sequence[int] | None,
    token_class: TokenClass,
    decomposition: Decomposition | None,
) -> Where:
    check_one_of("token_class", token_class, TOKEN_CLASSES)
    if positions is not None and (not positions or min(positions) < 0):
        raise ValueError(f"positions count from 0 (rows are padded on the right); got {positions}")
    chosen = None if positions is None else tuple(positions)
    if token_class in ("all", "bos"):
        return Where(chosen, token_class, prefix=1 if reference is None else reference.prefix)
    if reference is None:
        raise ValueError(
            f"the {token_class} tokens are only known for the prompts of a reference. Give "
            "`reference` the prompts that the model is run on"
        )
    decomposition = decomposition or decompose(capture(model, reference))
    mask = decomposition.tokens_of(token_class)
    masks = tuple(mask[tokens] for tokens in prompt_slices(decomposition.prompt))
    if [len(mask) for mask in masks] != [len(tokens) for tokens in reference.tokens]:
        raise ValueError("the decomposition is not of the reference's prompts: lengths differ")
    return Where(chosen, token_class, masks)
