"""`ablate`: replace activations while a model runs.  An intervention says what a component does."""

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from gainlens.activations.capturing import capture
from gainlens.core.spec import HOWS, Ablation
from gainlens.core.vocabulary import TOKEN_CLASSES, TokenClass
from gainlens.interventions.replacements import (
    Address,
    Donors,
    Mean,
    Replacement,
    Rows,
    from_reference,
    own,
    zero,
)
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.massive import prompt_slices
from gainlens.models.hooks import scoped, writing
from gainlens.models.loaded import AnyModel
from gainlens.models.sites import ModelSites, Site, sites_of
from gainlens.records.gains import Decomposition
from gainlens.records.inputs import EncodedPrompts

How = str | Callable[..., Tensor | None]
"""zero, mean, resample, or a TransformerLens hook function (tensor, hook) -> tensor."""

_SITE = re.compile(r"(?:blocks\.(?P<layer>-?\d+)\.)?(?P<rest>[^\[\]]+)(?:\[(?P<head>-?\d+)\])?")
_NO_POSITIONS = ("hook_pattern", "hook_attn_scores", "hook_rot_q", "hook_rot_k", "_cos", "_sin")
"""Sites whose second axis is not, or not on every back end, the position."""


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
    """Replace what passes at some sites, for as long as the context is open.

        with gainlens.ablate(model, {"blocks.-1.hook_mlp_out": "zero"}):
            captured = gainlens.capture(model, prompts)

    Composes with everything that runs the model, on every back end.  No hook stays behind, whatever
    is raised, and hooks of your own are not touched: they run first where they were there first.

    Args:
        model: from `load` or `wrap`, or a bare model.
        sites: what to replace, by TransformerLens hook name, and how.  Blocks count from the end
            where negative; one head is `blocks.3.attn.hook_z[2]`.  How is one of
            zero: 0 everywhere;
            mean: over the reference's tokens, of position 0 and of all others apart;
            resample: what the same position of another prompt of the reference has, by `seed` (the
            longest other prompt's last position, where none is as long);
            a TransformerLens hook function `(tensor, hook) -> tensor`, where `hook` has a name and
            a layer(); None returned means that it worked in place.  Its result is cast to the
            site's dtype.
        reference: prompts that mean and resample draw on, and whose token classes are known.
        positions: replace at these positions alone, counted from 0.
        token_class: replace at tokens of this class alone (position 0 for bos, on any prompt;
            massive and ordinary on prompts of the reference).
        decomposition: of the reference, for the token classes; measured on entry where not given.
        seed: of resample.

    Several sites apply in the order of the mapping.  Nested: the inner context applies after the
    outer one, and its means and donors come from the model as the outer one leaves it.

    Raises ValueError for a site or a setting that cannot be, for a hook function's result of
    another shape, and where a replacement is not finite (with the site); on exit, where the model
    was run and nothing was replaced at some site.

    Examples:
        >>> with gainlens.ablate(loaded.model, {"blocks.-1.hook_mlp_out": "zero"}):
        ...     silenced = gainlens.capture(loaded.model, prompts)
        >>> float(silenced.column("mm")[-1].max())
        0.0
    """
    found = sites_of(model)
    rows = Rows(reference)
    where = _where(model, reference, positions, token_class, decomposition)
    planned = plan(found, sites, reference=reference, rows=rows, where=where, seed=seed)
    if reference is not None:
        from_reference(model, found, planned.tables, reference)
    writers = planned.writers(where, rows)
    seen = partial(found.embedding.register_forward_pre_hook, rows.see, with_kwargs=True)
    with scoped([seen]), writing([(writer.address.site, writer) for writer in writers]):
        yield
    for writer in writers:
        writer.check(rows.passes)


@dataclass(frozen=True)
class Where:
    """The tokens at which a replacement holds."""

    positions: tuple[int, ...] | None = None
    token_class: TokenClass = "all"
    masks: tuple[np.ndarray, ...] = ()
    """whether each token of a reference prompt is of the class, [position], one a prompt"""

    @property
    def everywhere(self) -> bool:
        return self.positions is None and self.token_class == "all"

    def mask(self, rows: Rows, tensor: Tensor) -> Tensor:
        """[batch, position] of an activation [batch, position, ...]."""
        batch, length = tensor.shape[:2]
        chosen = np.ones((batch, length), dtype=bool)
        if self.token_class == "bos":
            chosen[:, 1:] = False
        elif self.token_class != "all":
            chosen[:] = False
            for row, key in enumerate(rows.keys(tensor)):
                index = rows.prompt(key)
                if index is None:
                    raise ValueError(
                        f"row {row} of this batch is no prompt of the reference, so its "
                        f"{self.token_class} tokens are not known: give `reference` the prompts "
                        "that the model is run on"
                    )
                known = self.masks[index][:length]
                chosen[row, : len(known)] = known
        if self.positions is not None:
            chosen &= np.isin(np.arange(length), self.positions)
        return torch.from_numpy(chosen).to(tensor.device)


class AblationWriter:
    """Puts a replacement in its place, where it is wanted, and checks it."""

    def __init__(self, address: Address, replace: Replacement, where: Where, rows: Rows) -> None:
        self.address = address
        self._replace, self._where, self._rows = replace, where, rows
        self._fired = self._changed = False

    def __call__(self, tensor: Tensor) -> Tensor:
        self._fired = True
        part = self.address.part(tensor)
        new = self._replace(part)
        if not self._where.everywhere:
            mask = self._where.mask(self._rows, part)
            self._changed |= bool(mask.any())
            new = torch.where(mask.reshape(*mask.shape, *[1] * (part.dim() - 2)), new, part)
        broken = ~torch.isfinite(new) & torch.isfinite(part)
        if broken.any():
            place = tuple(broken.nonzero()[0].tolist())
            raise ValueError(
                f"the replacement at {self.address.name} is not finite at index {place} of "
                f"{tuple(part.shape)}, where the model's own activation is"
            )
        return self.address.put(tensor, new)

    def check(self, passes: int) -> None:
        """ValueError where the model ran and nothing was replaced."""
        if not passes or (self._fired and (self._changed or self._where.everywhere)):
            return
        reason = (
            f"no {self._where.token_class} token passed at the wanted positions"
            if self._fired
            else "no activation passed there (some sites of HookedTransformer need a setting such "
            "as cfg.use_attn_result)"
        )
        raise ValueError(f"nothing was ablated at {self.address.name}: {reason}")


def check_sites(model: nn.Module, ablations: Sequence[Ablation]) -> None:
    """ValueError, with the nearest sites there are, for an ablation at a site that this model
    lacks."""
    sites = sites_of(model)
    for ablation in ablations:
        address_of(sites, ablation.site)


def address_of(sites: ModelSites, text: str) -> Address:
    """A site's name, with blocks from the end and single heads -> where it is in this model."""
    match = _SITE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no site; one is blocks.-1.hook_mlp_out")
    name = match["rest"]
    if match["layer"] is not None:
        block = int(match["layer"])
        if not -sites.num_blocks <= block < sites.num_blocks:
            raise ValueError(
                f"{text} names a block that this model does not have: its blocks are 0 to "
                f"{sites.num_blocks - 1}, or -1 to -{sites.num_blocks} from the end"
            )
        name = f"blocks.{block % sites.num_blocks}.{name}"
    site = sites.site(name)
    if sites.kind == "bridge" and name.endswith("hook_resid_mid"):
        raise ValueError(
            f"on a TransformerBridge {name} is what enters the MLP's norm alone: writing there "
            "does not reach the stream; ablate hook_attn_out or take --backend hooked"
        )
    return Address(site, _head(sites, site, match["head"]))


def _head(sites: ModelSites, site: Site, text: str | None) -> int | None:
    if text is None:
        return None
    if not site.name.endswith(".attn.hook_z"):
        raise ValueError(f"single heads are ablated at attn.hook_z, not at {site.name}")
    if not -sites.num_heads <= int(text) < sites.num_heads:
        raise ValueError(
            f"{site.name} has heads 0 to {sites.num_heads - 1}, and head {text} was asked for"
        )
    return int(text) % sites.num_heads


@dataclass(frozen=True)
class Plan:
    """What is to be replaced by what; the tables must be filled from the reference first."""

    makers: tuple[tuple[Address, Callable[[], Replacement]], ...]
    tables: tuple[tuple[Address, Mean | Donors], ...]

    def writers(self, where: Where, rows: Rows) -> list[AblationWriter]:
        """One a site, in the order asked for."""
        return [AblationWriter(address, make(), where, rows) for address, make in self.makers]


def plan(
    found: ModelSites,
    wanted: Mapping[str, How],
    *,
    reference: EncodedPrompts | None,
    rows: Rows,
    where: Where,
    seed: int = 0,
) -> Plan:
    """Find and check every site, before anything runs."""
    tables: list[tuple[Address, Mean | Donors]] = []
    makers: list[tuple[Address, Callable[[], Replacement]]] = []
    for text, how in wanted.items():
        address = address_of(found, text)
        if address.name in [other.name for other, _ in makers]:
            raise ValueError(f"{address.name} is ablated twice in one mapping ({text}): nest them")
        _check_how(address, how, reference, where)
        if callable(how):
            makers.append((address, partial(own, how, address.name)))
        elif how == "zero":
            makers.append((address, zero))
        else:
            table = Mean() if how == "mean" else Donors(rows, seed)
            tables.append((address, table))
            makers.append((address, table.replacement))
    return Plan(tuple(makers), tuple(tables))


def _check_how(address: Address, how: How, reference: EncodedPrompts | None, where: Where) -> None:
    if not callable(how) and how not in HOWS:
        raise ValueError(
            f"{address.name} is to be ablated by {how!r}; give one of {', '.join(HOWS)}, or a "
            "hook function (tensor, hook) -> tensor"
        )
    if how in ("mean", "resample") and reference is None:
        raise ValueError(f"{how} at {address.name} needs prompts to draw on: give `reference`")
    by_position = how in ("mean", "resample") or not where.everywhere
    if by_position and address.name.endswith(_NO_POSITIONS):
        raise ValueError(
            f"{address.name} has no position axis of its own, so it cannot be ablated by mean, "
            "resample, position or token class; give zero or a hook function, for all tokens"
        )


def _where(
    model: AnyModel,
    reference: EncodedPrompts | None,
    positions: Sequence[int] | None,
    token_class: TokenClass,
    decomposition: Decomposition | None,
) -> Where:
    if token_class not in TOKEN_CLASSES:
        raise ValueError(f"token_class is one of {', '.join(TOKEN_CLASSES)}, not {token_class}")
    if positions is not None and (not positions or min(positions) < 0):
        raise ValueError(f"positions count from 0 (rows are padded on the right); got {positions}")
    chosen = None if positions is None else tuple(positions)
    if token_class in ("all", "bos"):
        return Where(chosen, token_class)
    if reference is None:
        raise ValueError(
            f"which tokens are {token_class} is known for a reference's prompts alone: give "
            "`reference` the prompts that the model is run on"
        )
    found = decomposition or decompose(capture(model, reference))
    mask = found.tokens_of(token_class)
    masks = tuple(mask[tokens] for tokens in prompt_slices(found.prompt))
    if [len(one) for one in masks] != [len(tokens) for tokens in reference.tokens]:
        raise ValueError("the decomposition is not of the reference's prompts: lengths differ")
    return Where(chosen, token_class, masks)
