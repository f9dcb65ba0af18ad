"""Devices that are not there: tensors that lie on the CPU, claim another device, and refuse to meet
one of a third, as those of several GPUs do.

    with emulated():
        tensor.to(device(1)) + other    # RuntimeError where `other` is on device(0)
"""

from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

KIND = "lazy"
"""A kind of device that torch knows by name and has no code for here."""


def device(index: int) -> torch.device:
    return torch.device(KIND, index)


class Placed(torch.Tensor):
    """A tensor whose numbers lie on the CPU, on a device that it claims."""

    @staticmethod
    def __new__(cls, numbers: torch.Tensor, claimed: torch.device) -> "Placed":
        return torch.Tensor._make_wrapper_subclass(
            cls,
            numbers.size(),
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            device=claimed,
        )

    def __init__(self, numbers: torch.Tensor, claimed: torch.device) -> None:
        self.numbers = numbers

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self) -> str:
        return f"Placed({self.numbers}, {self.device})"

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


class _Devices(TorchDispatchMode):
    """For functions that make a tensor from none, told to which device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


_BETWEEN = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
"""What crosses devices by purpose."""


def _run(function, args, kwargs):
    tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, torch.Tensor)]
    found = {each.device for each in tensors if each.dim() or each.device.type != "cpu"}
    if len(found) > 1 and function not in _BETWEEN:
        raise RuntimeError(
            f"{function}: expected all tensors to be on the same device, but found {found}"
        )
    target = torch.device(kwargs.get("device") or next(iter(found), torch.device("cpu")))
    if function is torch.ops.aten.copy_.default:
        target = args[0].device
    plain_args, plain_kwargs = tree_map(_numbers, (args, kwargs))
    if plain_kwargs.get("device") is not None:
        plain_kwargs["device"] = torch.device("cpu")
    result = function(*plain_args, **plain_kwargs)
    mine = {id(each.numbers): each for each in tensors if isinstance(each, Placed)}

    def claimed(value):
        if not isinstance(value, torch.Tensor) or target.type == "cpu":
            return value
        held = mine.get(id(value))
        return Placed(value, target) if held is None else held

    return tree_map(claimed, result)


def _numbers(value):
    return value.numbers if isinstance(value, Placed) else value


@contextmanager
def emulated():
    with _Devices():
        yield
