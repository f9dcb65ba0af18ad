"""Define what a measurement starts from: encoded prompts and a loaded checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64


@dataclass(frozen=True)
class EncodedPrompts:
    """Hold texts as the token ids of one model's tokenizer."""

    source: str
    """name of the prompt set, or the file it came from"""
    sha256: str
    """hash of the canonical JSON of names and texts, before any cutting"""
    ids: tuple[str, ...]
    """one name per prompt"""
    tokens: tuple[Int64[np.ndarray, " _"], ...]
    """token ids [position], one array per prompt; the axis is unnamed because lengths differ"""
    bos: bool
    """whether position 0 of every prompt holds BOS, or what the tokenizer puts in its place (Qwen2
    prepends none)"""
    cut: int
    """how many prompts were shortened to fit"""
    left_out: tuple[str, ...]
    """names of prompts that could not be used, with the reason"""
    note: str = ""
    """what a reader must know of the texts, and of special tokens within them; empty if nothing"""
    groups: tuple[str, ...] = ()
    """the kind or file of each prompt, "" for none; empty if the set names no groups"""
    prefix: int = 1
    """how many tokens begin every prompt alike and are classed with position 0: itself, and what
    the tokenizer ([gMASK] <sop>) or a chat template puts after it"""


@dataclass(frozen=True)
class Checkpoint:
    """Describe what was loaded, from where, and what the check at load found."""

    name: str
    """key of the model within a comparison"""
    hf_name: str
    """hub name or directory as given"""
    revision: str | None
    """commit hash of a hub model, else None"""
    backend: str
    dtype: str
    architecture: str
    num_blocks: int
    num_heads: int
    d_model: int
    d_vocab: int
    context: int
    """max_position_embeddings, tokens"""
    config: Mapping[str, Any]
    """the Hugging Face config as a plain dictionary, for identification"""
    training: Mapping[str, Any] | None
    """the `compared` block of training.json beside the weights, else None: training unknown"""
    additivity: float
    """largest |x+a+m-y| / (|x|+|a|+|m|+|y|) over blocks and tokens of the check prompt"""
    logits_kl: float | None
    """largest KL divergence over tokens from the Hugging Face model's logits, nats; None if the
    Hugging Face model is itself what is measured (native), or if `logits_skipped` says why"""
    weights: str | None = None
    """sha256 that names a directory's weights (`weights_digest`); None for a hub model, whose
    commit names them, and for a model that was already in memory"""
    logits_skipped: str = ""
    """why the logits were not compared with Hugging Face's; empty if they were or need not be"""
    processed: bool = False
    """whether TransformerLens had folded or centred the weights before they were measured"""
    quantisation: str | None = None
    """how the file stores its weights, e.g. Q4_K_M: they were rounded so, then dequantised"""
    base: str | None = None
    """the model that an adapter was merged into; None if there is no adapter"""
    left_out: tuple[str, ...] = ()
    """parts of the checkpoint that were not loaded, e.g. the vision tower"""
