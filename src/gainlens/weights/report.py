"""Report W_U and RoPE of a checkpoint without its model, from config.json and the shard of lm_head.

This needs neither the model nor its other shards, so a laptop can report on a 70B model.
"""

import math
from pathlib import Path

import numpy as np

from gainlens.models.gguf_files import is_gguf
from gainlens.models.hub import check_directory, fetch_some
from gainlens.models.opening import open_model
from gainlens.models.sources import resolve
from gainlens.records.weights import RopeReport, UnembedReport
from gainlens.weights.of_model import unembed_report
from gainlens.weights.rope import rope_report
from gainlens.weights.unembed import spectrum_report, unembed_gram
from gainlens.weights.unembed_file import (
    config_in,
    final_norm_of,
    read_unembedding,
    unembedding_files,
)


def weights_report(
    source: str | Path, *, revision: str | None = None
) -> tuple[UnembedReport, RopeReport]:
    """Report W_U's spectrum and norms, and what the config states of RoPE.

    Args:
        source: hub name, directory, GGUF file (which is read whole), or one of the package's twins;
            of a sharded checkpoint the shards without lm_head and the final norm may be missing,
            and are not fetched.
        revision: branch, tag or commit of a hub model.

    No model is made, so no rotary buffer is read: `measured_theta` is None.  If RoPE is not known,
    W_U is still reported, and `note` of the RoPE report says why.  Raises ValueError with one
    sentence if the checkpoint cannot be read or holds no unembedding.

    Examples:
        >>> unembed, rope = gainlens.weights_report("gainlens:context512-theta10k")
        >>> unembed.shape, rope.rope_theta, rope.measured_theta
        ((4096, 128), 10000.0, None)
    """
    if is_gguf(str(source)):
        opened = open_model(source, revision=revision)
        return unembed_report(opened.weights("float32")), _rope(opened.config)
    directory = Path(resolve(str(source)))
    check_directory(str(directory))
    if not directory.is_dir():
        directory = fetch_some(str(source), revision, unembedding_files)
    weight, tied = read_unembedding(directory)
    scale, mean_off = final_norm_of(directory, weight.shape[1])
    return (
        spectrum_report(unembed_gram(weight), scale, tied=tied, mean_off=mean_off),
        _rope(config_in(directory)),
    )


def _rope(config: object) -> RopeReport:
    try:
        return rope_report(None, config)
    except ValueError as problem:
        return RopeReport(
            rope_theta=None,
            rope_scaling=None,
            max_position=None,
            measured_theta=None,
            wavelengths=np.empty(0),
            beyond_context=math.nan,
            theta_bound=None,
            note=str(problem),
        )
