"""Read and write activations during forward passes, with torch hooks that never stay behind."""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from gainlens.models.decoders import first_tensor, tensor_of, with_first
from gainlens.models.loaded import Reader, Site, Writer


@contextmanager
def reading(readers: Sequence[tuple[Site, Reader]]) -> Generator[None]:
    """Call each reader with its site's activation during forward passes within the context.

    A reader sees what the model goes on with: hooks that were there before have run.
    """
    with scoped(partial(_register_reader, site, read) for site, read in readers):
        yield


@contextmanager
def writing(writers: Sequence[tuple[Site, Writer]]) -> Generator[None]:
    """Let each writer replace its site's activation during forward passes within the context.

    Writers of one site apply in order, after hooks that were there before; readers registered
    later see the result.
    """
    with scoped(partial(_register_writer, site, write) for site, write in writers):
        yield


@contextmanager
def scoped(registrations: Iterable[Callable[[], Any]]) -> Generator[None]:
    """Each registration returns a torch hook's handle; all are removed, whatever is raised."""
    handles: list[Any] = []
    try:
        for register in registrations:
            handles.append(register())
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Shown:
    """Show a site's tensor as readers and writers see it."""

    def __init__(self, site: Site) -> None:
        self._heads = site.heads
        self._stream: tuple[int, ...] | None = None

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep the shape of the stream that enters the block."""
        self._stream = first_tensor(args, kwargs).shape

    def __call__(self, tensor: Tensor) -> Tensor:
        if self._stream is not None:
            tensor = tensor.reshape(self._stream)
        return tensor if self._heads is None else tensor.unflatten(-1, (self._heads, -1))


class _Handles(list[Any]):
    """Torch hooks that are removed together."""

    def remove(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for handle in self:
            handle.remove()


def _register_after(site: Site, shown: _Shown, hook: Callable[..., Any]) -> Any:
    if site.within is None:
        return site.module.register_forward_hook(hook)
    enter = site.within.register_forward_pre_hook(shown.enter, with_kwargs=True)
    return _Handles([enter, site.module.register_forward_hook(hook)])


def _register_reader(site: Site, read: Reader) -> Any:
    shown = _Shown(site)
    if site.side == "input":

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            read(shown(first_tensor(args, kwargs)))

        return site.module.register_forward_pre_hook(before, with_kwargs=True)

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        tensor = tensor_of(output)
        read(shown(tensor.clone() if site.copied else tensor))

    return _register_after(site, shown, after)


def _register_writer(site: Site, write: Writer) -> Any:
    shown = _Shown(site)

    def rewritten(tensor: Tensor) -> Tensor:
        return write(shown(tensor)).reshape(tensor.shape)

    if site.side == "input":

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return with_first(args, kwargs, rewritten(first_tensor(args, kwargs)))

        return site.module.register_forward_pre_hook(before, with_kwargs=True)

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        new = rewritten(tensor_of(output))
        return (new, *output[1:]) if isinstance(output, tuple) else new

    return _register_after(site, shown, after)
