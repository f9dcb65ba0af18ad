"""Compute what a job costs: arithmetic per token, the card's rate, memory."""

import os

import torch

from training.design import Job

PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bfloat16 FLOP/s by the vendor's datasheet, without sparsity; SXM cards."""
STATE_BYTES = 22
"""Per weight: float32 weight, gradient and two moments, two bfloat16 copies, a gradient of one."""
SEEN = 0.85
"""Share of the count below that a step was seen to hold at its most: the compiler computes some
activations again. 6.6 GB of 8.1 for eight small replicas, 14.6 of 14.8 for three larger ones."""


def flops_per_token(job: Job) -> float:
    """Count the model's operations per trained token: forward, and twice that backward.

    A multiply-add counts two. Attention counts the causal half: a token of a sequence of n reads
    n / 2 others on average. Recomputation, the optimiser and the embedding do not count.
    """
    shape, share = job.shape, job.short_share
    mean_context = (1 - share) * job.context + share * job.short
    attention = 2 * shape.blocks * shape.d_model * mean_context
    return 3 * (2 * shape.matrix_weights + attention)


def peak_rate(device: str) -> float:
    """Return the card's dense bfloat16 FLOP/s; NaN for what is not listed."""
    if not device.startswith("cuda"):
        return float("nan")
    name = torch.cuda.get_device_name(device)
    return next((rate for card, rate in PEAK.items() if card in name), float("nan"))


def memory_bytes(job: Job) -> int:
    """Estimate what a training step holds at its most."""
    shape, replicas = job.shape, len(job.replicas)
    state = STATE_BYTES * shape.weights * replicas
    # kept for the backward pass, per block: two float32 streams; in bfloat16 two normed streams,
    # q k v twice, what attention mixed, and of the MLP gate, up and their product
    per_block = 8 * shape.d_model + 2 * (2 + 6 + 1) * shape.d_model + 2 * 3 * shape.d_ff
    per_token = shape.blocks * per_block + 6 * shape.vocabulary
    return round(state + SEEN * per_token * replicas * job.training.tokens_per_step)


def memory_of(device: str) -> int:
    """Return the memory that there is, bytes."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_memory(job: Job, device: str) -> None:
    """Raise ValueError if a job cannot fit on the device."""
    need, there = memory_bytes(job), memory_of(device)
    if need > there:
        raise ValueError(
            f"job {job.name} needs about {need / 1e9:.0f} GB and {device} has {there / 1e9:.0f} "
            f"GB: lower replicas_per_job ({len(job.replicas)} here) or windows_per_step."
        )
