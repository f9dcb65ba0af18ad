"""Hold a model as it is on its prompts: what every intervention is compared with."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gainlens.activations.capturing import capture
from gainlens.activations.losses import Readout
from gainlens.core.spec import Rule
from gainlens.metrics.decomposition import decompose
from gainlens.models.encoding import encode_for
from gainlens.models.loaded import LoadedModel
from gainlens.models.sites import sites_of
from gainlens.prompts.texts import load_prompts
from gainlens.records.gains import Decomposition
from gainlens.records.inputs import EncodedPrompts

if TYPE_CHECKING:
    from gainlens.interventions.plain import PlainPass


@dataclass(frozen=True)
class Baseline:
    """Hold a model as it is on its prompts."""

    model: Any
    dtype: str
    config: Any
    """the Hugging Face config as a plain dictionary"""
    prompts: EncodedPrompts
    sentence: EncodedPrompts
    """the notebook's one sentence"""
    decomposition: Decomposition
    """fixes the token classes: an intervention is judged on the same tokens"""
    rule: Rule
    batch_tokens: int | None = None
    """tokens per batch; None: what suits the device"""
    plain: "PlainPass | None" = None
    """what was read of the passes that `decomposition` is of; None: nothing"""


def baseline_of(
    loaded: LoadedModel,
    prompts: EncodedPrompts,
    rule: Rule | None = None,
    *,
    decomposition: Decomposition | None = None,
    sentence: EncodedPrompts | None = None,
    batch_tokens: int | None = None,
) -> Baseline:
    """Measure a loaded model once, for interventions to compare with.

    Args:
        loaded: from `load` or `wrap`.
        prompts: token ids, from `encode_for`.
        rule: estimand and interval; None: `Rule()`.
        decomposition: of these prompts; None: measured here.
        sentence: the notebook's sentence; None: encoded here.
        batch_tokens: tokens per batch of every pass; None: what suits the device.

    Raises ValueError if the model cannot be captured, or if it computes its logits in an unknown
    way: its loss is then not known either, and no intervention can be judged by it.

    Examples:
        >>> baseline = gainlens.baseline_of(loaded, prompts)
        >>> baseline.decomposition.log_gain.shape
        (8, 35)
    """
    rule = rule or Rule()
    Readout(loaded.model, sites_of(loaded.model)).check(prompts)
    return Baseline(
        model=loaded.model,
        dtype=loaded.checkpoint.dtype,
        config=loaded.checkpoint.config,
        prompts=prompts,
        sentence=sentence or encode_for(loaded, load_prompts("notebook")),
        decomposition=decomposition
        or decompose(
            capture(loaded.model, prompts, batch_tokens=batch_tokens),
            split=rule.split,
            massive_ratio=rule.massive_ratio,
        ),
        rule=rule,
        batch_tokens=batch_tokens,
    )
