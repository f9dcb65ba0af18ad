"""Generate click options from the fields of a spec, and print help that leads with examples."""

import json
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

Decorator = Callable[[Any], Any]


class ExamplesCommand(click.Command):
    """Define a command whose help leads with examples."""

    def __init__(self, *args: Any, examples: Sequence[tuple[str, str]] = (), **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", {"help_option_names": ["-h", "--help"]})
        super().__init__(*args, **kwargs)
        self._examples = examples

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the description, the examples, the usage and every option."""
        self.format_help_text(ctx, formatter)
        if self._examples:
            with formatter.section("Examples"):
                calls = [
                    (f"{ctx.command_path} {flags}".strip(), what) for flags, what in self._examples
                ]
                formatter.write_dl(calls, col_max=60)
        formatter.write_paragraph()
        self.format_usage(ctx, formatter)
        self.format_options(ctx, formatter)
        self.format_epilog(ctx, formatter)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; refuse a flag that takes one value and is given twice."""
        single = {
            name
            for parameter in self.params
            if isinstance(parameter, click.Option) and not parameter.multiple
            for name in parameter.opts
            if name.startswith("--")
        }
        names = [argument.partition("=")[0] for argument in args]
        twice = [name for name in names if name in single and names.count(name) > 1]
        if twice:
            raise click.UsageError(f"{twice[0]} is given twice: give it once.", ctx)
        return super().parse_args(ctx, args)


json_option: Final = click.option(
    "--json", "as_json", is_flag=True, help="Print only the result as JSON."
)


def print_json(document: Any) -> None:
    """Print a document of JSON values."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def options_of(spec: type[BaseModel], *fields: str) -> tuple[Decorator, ...]:
    """Return one click option per field, with the field's bounds, default and description."""
    return tuple(_option(name, spec.model_fields[name]) for name in fields)


def _option(name: str, field: FieldInfo) -> Decorator:
    """Return the option of one field.  Its value is None if the flag is not given."""
    kind, multiple = _item_type(field.annotation)
    described = (field.description or "").rstrip()
    if kind is not bool and field.default not in (None, ()):
        shown = field.default[0] if multiple else field.default
        described += f" [default: {shown}]"
    if multiple:
        described = described.replace(" [default", " Repeatable. [default", 1)
        described += "" if "Repeatable" in described else " Repeatable."
    flag = f"--{name.replace('_', '-')}"
    if kind is bool:
        return click.option(flag, is_flag=True, default=None, help=described)
    return click.option(
        flag, type=_click_type(kind, field), metavar=_metavar(kind), multiple=multiple,
        default=None, help=described,
    )  # fmt: skip


def _item_type(annotation: Any) -> tuple[Any, bool]:
    """Return the type of one value, and whether the field takes several."""
    if get_origin(annotation) in (types.UnionType, typing.Union):
        (annotation,) = (part for part in get_args(annotation) if part is not types.NoneType)
    if get_origin(annotation) is tuple:
        return get_args(annotation)[0], True
    return annotation, False


def _click_type(kind: Any, field: FieldInfo) -> Any:
    if get_origin(kind) is Literal:
        return click.Choice(list(get_args(kind)))
    if kind is int:
        return click.IntRange(min=_bound(field, "ge"))
    if kind is float and field.metadata:
        low, high = _bound(field, "gt"), _bound(field, "lt")
        return click.FloatRange(low, high, min_open=low is not None, max_open=high is not None)
    return kind if kind is float else str


def _bound(field: FieldInfo, name: str) -> Any:
    """Return one of the field's bounds (ge, gt, lt), or None."""
    bounds = (getattr(part, name, None) for part in field.metadata)
    return next((bound for bound in bounds if bound is not None), None)


def _metavar(kind: Any) -> str | None:
    if get_origin(kind) is Literal:
        return None
    return {int: "N", float: "NUMBER"}.get(kind, "TEXT")


def with_options(options: Sequence[Decorator]) -> Decorator:
    """Return a decorator that adds options to a command, in this order."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate
