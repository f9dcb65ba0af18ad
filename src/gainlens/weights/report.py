"""W_U and RoPE of a checkpoint without its model: config.json and the one shard that holds lm_head.

What of the claim can be said of a 70B model on a laptop.
"""

from pathlib import Path
from typing import Any

from gainlens.models.hub import check_directory, fetch_some
from gainlens.models.sources import resolve
from gainlens.models.tensors import json_object
from gainlens.records.weights import RopeReport, UnembedReport
from gainlens.weights.rope import rope_report
from gainlens.weights.unembed import spectrum_report, unembed_gram
from gainlens.weights.unembed_file import read_final_norm, read_unembedding, unembedding_files


def weights_report(
    source: str | Path, *, revision: str | None = None
) -> tuple[UnembedReport, RopeReport]:
    """W_U's spectrum and norms, and what the config says of RoPE.

    Args:
        source: hub name, directory, or one of the package's twins; of a sharded checkpoint the
            shards without lm_head and the final norm may be missing, and are not fetched.
        revision: branch, tag or commit of a hub model.

    No model is made, so no rotary buffer is read: `measured_theta` is None.  Raises ValueError with
    one sentence where the checkpoint cannot be had or holds no unembedding.

    Examples:
        >>> unembed, rope = gainlens.weights_report("gainlens:context512-theta10k")
        >>> unembed.shape, rope.rope_theta, rope.measured_theta
        ((4096, 128), 10000.0, None)
    """
    directory = Path(resolve(str(source)))
    check_directory(str(directory))
    if not directory.is_dir():
        directory = fetch_some(str(source), revision, unembedding_files)
    config: dict[str, Any] = json_object(directory / "config.json")
    text: Any = config.get("text_config") or config
    weight, tied = read_unembedding(directory)
    return (
        spectrum_report(
            unembed_gram(weight),
            read_final_norm(directory),
            tied=tied,
            mean_off="rms_norm_eps" not in text,  # a LayerNorm names its epsilon otherwise
        ),
        rope_report(None, config),
    )
