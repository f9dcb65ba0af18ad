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

_WARP_ELEMENTS = 1024
"""Elements of a row a warp.  131,072 tokens of 4,096 in bfloat16 take 1.1 ms on an H200, where
reading them takes 1.0; torch.compile takes 1.5 ms for the columns, torch.topk 5.6 for the rest."""
_MOST_WARPS = 16
_FREE = {torch.bfloat16: 1 << 16, torch.float16: 1 << 13}
"""Numbers that fit the bits of a float32 that such a number leaves 0."""


@triton.jit
def _plus(
    a0, a1, a2, a3, a4, a5, a6, a7, a8, b0, b1, b2, b3, b4, b5, b6, b7, b8
):  # fmt: skip
    """All sums in one reduction: one exchange between warps, not nine."""
    return a0 + b0, a1 + b1, a2 + b2, a3 + b3, a4 + b4, a5 + b5, a6 + b6, a7 + b7, a8 + b8


@triton.jit(do_not_specialize=["tokens"])  # else compiled anew for some lengths
def _kernel(
    x_ptr, a_ptr, m_ptr, y_ptr, out_ptr, x_stride, a_stride, m_stride, y_stride, tokens, d_model,
    WIDTH: tl.constexpr, RANK: tl.constexpr, SHORT_KEYS: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, WIDTH)
    inside = place < d_model
    x = tl.load(x_ptr + token * x_stride + place, mask=inside, other=0.0).to(tl.float32)
    a = tl.load(a_ptr + token * a_stride + place, mask=inside, other=0.0).to(tl.float32)
    m = tl.load(m_ptr + token * m_stride + place, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(y_ptr + token * y_stride + place, mask=inside, other=0.0).to(tl.float32)
    xa, xm = x + a, x + m
    products = (x * x, a * a, m * m, x * a, x * m, a * m, y * y, xa * xa, xm * xm)
    sums = tl.reduce(products, 0, _plus)
    out_ptr += token
    for column in tl.static_range(9):
        tl.store(out_ptr + column * tokens, sums[column])
    # One integer a component: the bits of |y| order as it does, and low dimensions win a tie.
    # Where y has 16 bits, the low bits of its float32 are free for the dimension.
    keys = tl.abs(y).to(tl.int32, bitcast=True)
    if not SHORT_KEYS:
        keys = keys.to(tl.int64) << 32
    keys = tl.where(inside, keys + (WIDTH - 1 - place), -1)
    for rank in tl.static_range(RANK):
        key = tl.max(keys, axis=0)
        keys = tl.where(keys == key, -1, keys)
        largest = WIDTH - 1 - (key & (WIDTH - 1)).to(tl.int32)
        value = tl.load(y_ptr + token * y_stride + largest)
        tl.store(out_ptr + (9 + rank) * tokens, value.to(tl.float32))
        tl.store(out_ptr + (9 + RANK + rank) * tokens, largest.to(tl.float32))


def fused(x: Tensor, a: Tensor, m: Tensor, y: Tensor, columns: int, rank: int) -> Tensor:
    """Four activations [token, d_model] of one CUDA device -> gram.BlockNumbers' packed numbers.

    Returns [columns + 2 rank, token], float32; among equal |components| the lowest dimension comes
    first.
    """
    assert columns == 9, "the kernel writes axes.GRAM_COLUMNS"
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
