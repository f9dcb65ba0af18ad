"""Read in a capture's own passes what interventions compare with, so that no pass is run twice."""

from collections.abc import Generator
from contextlib import contextmanager

from gainlens.activations.batches import Batch
from gainlens.activations.losses import Readout
from gainlens.core.spec import RunSpec
from gainlens.interventions.last_block import LastReader, TokenValues
from gainlens.interventions.replay import Passage, can_keep
from gainlens.models.hooks import reading
from gainlens.models.loaded import LoadedModel
from gainlens.models.sites import sites_of
from gainlens.records.inputs import EncodedPrompts


class PlainPass:
    """Hold the last block's values of a model as it is, and its streams if they fit.

    Give it to `capture` as `beside`.
    """

    def __init__(self, loaded: LoadedModel, prompts: EncodedPrompts, blocks: int) -> None:
        """blocks: number of last blocks whose streams are kept."""
        self._sites = sites_of(loaded.model)
        self._first = self._sites.num_blocks - min(blocks, self._sites.num_blocks)
        self._reader = LastReader(loaded.model, self._sites)
        self._keeps = can_keep(prompts, self._sites, self._first)
        self.values: dict[int, TokenValues] = {}
        """by prompt"""
        self.kept: dict[tuple[int, ...], Passage] = {}
        """by the prompts of a batch; empty if they do not fit"""

    @contextmanager
    def __call__(self, batch: Batch) -> Generator[None]:
        """Read the pass of a batch that is run within the context."""
        passage = Passage(self._sites, batch.tokens, self._first)
        with passage.recording(), reading(self._reader.readers()):
            yield
        self.values |= self._reader.token_values(batch)
        if self._keeps:
            self.kept[batch.index] = passage


def plain_pass(loaded: LoadedModel, prompts: EncodedPrompts, spec: RunSpec) -> PlainPass | None:
    """Return what reads along with the capture of a model that interventions will run on.

    None if there will be none, if they run on another model of the same tensors, or if the loss of
    this one is not known.
    """
    if not spec.sweep or loaded.hf_model is not None:
        return None
    try:
        Readout(loaded.model, sites_of(loaded.model)).check(prompts)
    except ValueError:  # `interventions_of` says so
        return None
    return PlainPass(loaded, prompts, spec.sweep)
