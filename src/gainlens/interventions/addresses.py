"""Find the site, or the head of a site, that a user named."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from gainlens.core.spec import Ablation
from gainlens.models.loaded import AnyModel
from gainlens.models.sites import ModelSites, Site, sites_of

_SITE = re.compile(r"(?:blocks\.(?P<block>-?\d+)\.)?(?P<rest>[^\[\]]+)(?:\[(?P<head>-?\d+)\])?")
_HEAD = re.compile(r"L(?P<block>\d+)H(?P<head>\d+)")


@dataclass(frozen=True)
class Address:
    """Name a site, or one head of it."""

    site: Site
    head: int | None = None

    @property
    def name(self) -> str:
        """Return the site's name, with the head in brackets."""
        return self.site.name if self.head is None else f"{self.site.name}[{self.head}]"

    @property
    def block(self) -> int:
        """Return the index of the block that the site belongs to."""
        return int(self.site.name.split(".")[1])

    def part(self, tensor: Tensor) -> Tensor:
        """Return the head's part of the site's activation, or all of it."""
        return tensor if self.head is None else tensor[..., self.head, :]

    def put(self, tensor: Tensor, part: Tensor) -> Tensor:
        """Return the site's activation with that part replaced."""
        if self.head is None:
            return part
        whole = tensor.clone()
        whole[..., self.head, :] = part
        return whole


def check_sites(model: AnyModel, ablations: Sequence[Ablation]) -> None:
    """Raise ValueError, with the nearest sites, if the model lacks the site of an ablation."""
    sites = sites_of(model)
    for ablation in ablations:
        address_of(sites, ablation.site)


def address_of(sites: ModelSites, text: str) -> Address:
    """Return the address that a name stands for.

    Args:
        sites: of the model.
        text: a TransformerLens hook name (`blocks.3.hook_mlp_out`), with the block counted from the
            end if negative; a head of a site (`blocks.3.attn.hook_z[2]`), or by its short name
            (`L3H2`).

    Raises ValueError, saying what there is, if the model has no such site, block or head.
    """
    head = _HEAD.fullmatch(text)
    match = _SITE.fullmatch(f"blocks.{head['block']}.attn.hook_z[{head['head']}]" if head else text)
    if match is None:
        raise ValueError(f"{text!r} is no site; one is blocks.-1.hook_mlp_out")
    name = match["rest"]
    if match["block"] is not None:
        block = int(match["block"])
        if not -sites.num_blocks <= block < sites.num_blocks:
            raise ValueError(
                f"{text} names a block that this model does not have: its blocks are 0 to "
                f"{sites.num_blocks - 1}, or -1 to -{sites.num_blocks} from the end"
            )
        name = f"blocks.{block % sites.num_blocks}.{name}"
    site = sites.site(name)
    if sites.kind == "bridge" and name.endswith("hook_resid_mid"):
        raise ValueError(
            f"on a TransformerBridge {name} is the input of the MLP's norm alone: a change there "
            "does not reach the stream. Ablate hook_attn_out or use --backend hooked"
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
