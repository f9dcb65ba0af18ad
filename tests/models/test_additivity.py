"""The check at load finds a back end whose sites are not what its blocks add."""

import pytest
import torch
from planting.checkpoints import BACK_ENDS

from gainlens.models.checks import check_additivity
from gainlens.models.decoders import tensor_of
from gainlens.models.loading import load
from gainlens.models.sites import sites_of

TOKENS = torch.arange(12)[None]


@pytest.fixture(scope="module")
def folder(make_checkpoint):
    return make_checkpoint()


@pytest.mark.parametrize("name", ["attn", "mlp"])
@pytest.mark.parametrize("backend", BACK_ENDS)
@pytest.mark.fault("a block that adds something else than its sites show", "refused: not additive")
def test_a_block_that_adds_something_else_is_refused(folder, backend, name):
    """Block 2 adds half as much again of what its site shows, as if it scaled it afterwards."""
    model = load(folder, backend=backend).model
    sites = sites_of(model)
    assert check_additivity(model, sites, TOKENS, "float32") < 2e-7
    shown: list[torch.Tensor] = []

    def keep(module, args, output):
        shown[:] = [tensor_of(output)]

    def add_more(module, args, output):
        new = tensor_of(output) + 0.5 * shown[0]
        return (new, *output[1:]) if isinstance(output, tuple) else new

    sites.site(f"blocks.2.hook_{name}_out").module.register_forward_hook(keep)
    sites.site("blocks.2.hook_resid_post").module.register_forward_hook(add_more)
    with pytest.raises(ValueError, match=r"block 2 of this .* is not additive"):
        check_additivity(model, sites, TOKENS, "float32")
