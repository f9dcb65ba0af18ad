"""Which attention kernel a job runs on: torch has several, and none is the fastest everywhere."""

import time
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from training.design import Job

ATTENTIONS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
FASTER = 0.95
"""flash, which costs the CPU less per call, is kept unless another takes at most this share."""
SAME_ATTENTION = 0.02
"""Largest relative difference of two attention kernels in bfloat16, which rounds to 2^-8."""


def attention_kernel(name: str) -> Any:
    """Return a context in which attention runs on one kernel; torch's own choice for default."""
    return sdpa_kernel(ATTENTIONS[name]) if name in ATTENTIONS else nullcontext()


def choose_attention(job: Job, device: torch.device) -> str:
    """Time the attention kernels on a job's shapes; the fastest that agrees with flash."""
    shape, context = job.shape, job.context
    sequences = len(job.replicas) * job.training.tokens_per_step // context
    generator = torch.Generator(device).manual_seed(0)
    size = (sequences, context, shape.heads, shape.d_head)
    drawn = [
        torch.randn(size, generator=generator, device=device, dtype=torch.bfloat16)
        for _ in range(4)
    ]
    parts = [part.transpose(1, 2).requires_grad_() for part in drawn[:3]]
    results: dict[str, list[Tensor]] = {}
    seconds: dict[str, float] = {}
    for name in ATTENTIONS:
        try:
            with attention_kernel(name):
                for call in range(6):
                    if call == 2:
                        torch.cuda.synchronize(device)
                        began = time.perf_counter()
                    mixed = F.scaled_dot_product_attention(*parts, is_causal=True)
                    gradients = torch.autograd.grad(mixed, parts, drawn[3].transpose(1, 2))
            torch.cuda.synchronize(device)
            seconds[name] = time.perf_counter() - began
            results[name] = [mixed.detach(), *gradients]
        except RuntimeError as error:  # a kernel that this card or torch does not have
            print(f"attention {name}: {str(error).splitlines()[0]}", flush=True)
    for name in [name for name in seconds if name != "flash" and "flash" in results]:
        pairs = zip(results[name], results["flash"], strict=True)
        worst = max(float((one - two).norm() / two.norm()) for one, two in pairs)
        if not worst < SAME_ATTENTION:
            print(f"attention {name} differs from flash by {worst:.3f}: not used", flush=True)
            del seconds[name]
    print({name: f"{value / 4 * 1e3:.2f} ms" for name, value in seconds.items()}, flush=True)
    if "flash" not in seconds:
        return min(seconds, key=lambda name: seconds[name]) if seconds else "default"
    best = min(seconds, key=lambda name: seconds[name])
    return best if seconds[best] <= FASTER * seconds["flash"] else "flash"
