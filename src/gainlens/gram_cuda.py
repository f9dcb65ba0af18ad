"""The Gram kernel on CUDA: one program a token reads x, a, m and y once and writes every number.

Triton, since a token's row fits the registers of one program: nine sums and the largest components
come from one read of the four tensors.  Importing this module needs triton, which comes with
torch's CUDA builds.
"""
# Triton compiles the kernel's source and gives its arguments their types at the call; it is not
# installed where the types are checked.
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# pyright: reportMissingParameterType=false, reportUntypedFunctionDecorator=false
# pyright: reportIndexIssue=false

import torch
import triton
import triton.language as tl
from torch import Tensor

_WARP_ELEMENTS = 512
"""Elements of a row a warp: 16 of each of the four tensors a thread."""
_MOST_WARPS = 16


@triton.jit(do_not_specialize=["tokens"])  # else compiled anew for some lengths
def _kernel(
    x_ptr, a_ptr, m_ptr, y_ptr, gram_ptr, value_ptr, index_ptr,
    x_stride, a_stride, m_stride, y_stride, tokens, d_model,
    WIDTH: tl.constexpr, RANK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, WIDTH)
    inside = place < d_model
    x = tl.load(x_ptr + token * x_stride + place, mask=inside, other=0.0).to(tl.float32)
    a = tl.load(a_ptr + token * a_stride + place, mask=inside, other=0.0).to(tl.float32)
    m = tl.load(m_ptr + token * m_stride + place, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(y_ptr + token * y_stride + place, mask=inside, other=0.0).to(tl.float32)
    out = gram_ptr + token
    tl.store(out, tl.sum(x * x))
    tl.store(out + tokens, tl.sum(a * a))
    tl.store(out + 2 * tokens, tl.sum(m * m))
    tl.store(out + 3 * tokens, tl.sum(x * a))
    tl.store(out + 4 * tokens, tl.sum(x * m))
    tl.store(out + 5 * tokens, tl.sum(a * m))
    tl.store(out + 6 * tokens, tl.sum(y * y))
    tl.store(out + 7 * tokens, tl.sum((x + a) * (x + a)))
    tl.store(out + 8 * tokens, tl.sum((x + m) * (x + m)))
    size = tl.where(inside, tl.abs(y), -1.0)
    for rank in tl.static_range(RANK):
        largest = tl.argmax(size, axis=0)
        chosen = place == largest
        tl.store(value_ptr + token * RANK + rank, tl.sum(tl.where(chosen, y, 0.0)))
        tl.store(index_ptr + token * RANK + rank, largest)
        size = tl.where(chosen, -1.0, size)


def fused(
    x: Tensor, a: Tensor, m: Tensor, y: Tensor, columns: int, rank: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Four activations [token, d_model] of one CUDA device -> its columns and top components.

    Returns the columns [column, token], the top values [token, rank], all float32, and their
    dimensions [token, rank], int32; among equal |components| the lowest dimension comes first.
    """
    assert columns == 9, "the kernel writes axes.GRAM_COLUMNS"
    tokens, d_model = y.shape
    rows = [part if part.stride(-1) == 1 else part.contiguous() for part in (x, a, m, y)]
    gram = torch.empty(columns, tokens, dtype=torch.float32, device=y.device)
    value = torch.empty(tokens, rank, dtype=torch.float32, device=y.device)
    index = torch.empty(tokens, rank, dtype=torch.int32, device=y.device)
    width = triton.next_power_of_2(d_model)
    warps = min(_MOST_WARPS, max(1, width // _WARP_ELEMENTS))
    with torch.cuda.device_of(y):
        _kernel[(tokens,)](
            *rows, gram, value, index, *(part.stride(0) for part in rows), tokens, d_model,
            WIDTH=width, RANK=rank, num_warps=warps,
        )  # fmt: skip
    return gram, value, index
