"""Compute the numbers of `gram` on CUDA in one read of x, a, m and y.

One Triton program handles one token, whose row fits into its registers.  Importing this module
needs triton, which comes with torch's CUDA builds.
"""

# Triton gives the arguments of a kernel their types at the call, and it may not be installed where
# the types are checked.
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# pyright: reportMissingParameterType=false, reportUntypedFunctionDecorator=false
# pyright: reportIndexIssue=false

import torch
import triton
import triton.language as tl
from torch import Tensor

_WARP_ELEMENTS = 1024
"""Elements of a row per warp.  On an H200, 131,072 tokens of 4,096 in bfloat16 take 1.1 ms; reading
them alone takes 1.0 ms, torch.compile 1.5 ms for the columns, torch.topk 5.6 ms for the rest."""
_MOST_WARPS = 16
_FREE = {torch.bfloat16: 1 << 16, torch.float16: 1 << 13}
"""Dimensions that fit into the low bits of a float32, which are 0 if the number came from 16
bits."""


@triton.jit
def _plus(
    a0, a1, a2, a3, a4, a5, a6, a7, a8, b0, b1, b2, b3, b4, b5, b6, b7, b8
):  # fmt: skip
    """Add up all nine sums in one reduction: one exchange between warps instead of nine."""
    return a0 + b0, a1 + b1, a2 + b2, a3 + b3, a4 + b4, a5 + b5, a6 + b6, a7 + b7, a8 + b8


@triton.jit(do_not_specialize=["tokens"])  # else compiled anew for some lengths
def _kernel(
    x_ptr, a_ptr, m_ptr, y_ptr, out_ptr, x_stride, a_stride, m_stride, y_stride, tokens, d_model,
    WIDTH: tl.constexpr, RANK: tl.constexpr, SHORT_KEYS: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    element = tl.arange(0, WIDTH)
    inside = element < d_model
    x = tl.load(x_ptr + token * x_stride + element, mask=inside, other=0.0).to(tl.float32)
    a = tl.load(a_ptr + token * a_stride + element, mask=inside, other=0.0).to(tl.float32)
    m = tl.load(m_ptr + token * m_stride + element, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(y_ptr + token * y_stride + element, mask=inside, other=0.0).to(tl.float32)
    xa, xm = x + a, x + m
    products = (x * x, a * a, m * m, x * a, x * m, a * m, y * y, xa * xa, xm * xm)
    sums = tl.reduce(products, 0, _plus)
    out_ptr += token
    for column in tl.static_range(9):
        tl.store(out_ptr + column * tokens, sums[column])
    # One integer per component: the bits of |y| sort as |y| does, and low dimensions win a tie.
    # If y has 16 bits, the low bits of its float32 are free for the dimension.
    keys = tl.abs(y).to(tl.int32, bitcast=True)
    if not SHORT_KEYS:
        keys = keys.to(tl.int64) << 32
    keys = tl.where(inside, keys + (WIDTH - 1 - element), -1)
    for rank in tl.static_range(RANK):
        key = tl.max(keys, axis=0)
        keys = tl.where(keys == key, -1, keys)
        largest = WIDTH - 1 - (key & (WIDTH - 1)).to(tl.int32)
        value = tl.load(y_ptr + token * y_stride + largest)
        tl.store(out_ptr + (9 + rank) * tokens, value.to(tl.float32))
        tl.store(out_ptr + (9 + RANK + rank) * tokens, largest.to(tl.float32))


def fused(x: Tensor, a: Tensor, m: Tensor, y: Tensor, columns: int, rank: int) -> Tensor:
    """Return the packed numbers of gram.BlockNumbers from four activations [token, d_model].

    The activations lie on one CUDA device.  Returns [columns + 2 rank, token], float32; among equal
    |components| the lowest dimension comes first.
    """
    assert columns == 9, "the kernel writes vocabulary.GRAM_COLUMNS"
    tokens, d_model = y.shape
    rows = [part if part.stride(-1) == 1 else part.contiguous() for part in (x, a, m, y)]
    out = torch.empty(columns + 2 * rank, tokens, dtype=torch.float32, device=y.device)
    width = triton.next_power_of_2(d_model)
    warps = min(_MOST_WARPS, max(1, width // _WARP_ELEMENTS))
    with torch.cuda.device_of(y):
        _kernel[(tokens,)](
            *rows, out, *(part.stride(0) for part in rows), tokens, d_model,
            WIDTH=width, RANK=rank, SHORT_KEYS=width <= _FREE.get(y.dtype, 0), num_warps=warps,
        )  # fmt: skip
    return out
