"""Define the `test` and `claims` commands, which judge claims of the catalogue or of a file."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from gainlens.cli.compare import compare_command
from gainlens.cli.flags import given
from gainlens.cli.measure import OUTPUT_OPTIONS, lengths_of, write_and_print
from gainlens.cli.options import ExamplesCommand, options_of, with_options
from gainlens.core.spec import MeasureSpec, Rule

if TYPE_CHECKING:
    from gainlens.runs.measurement import Measurement

EXAMPLES: Final = (
    ("final-block-jump model=gpt2", "one claim of the catalogue on one model"),
    ("tuning-keeps-last-gain base=DIR tuned=DIR", "a claim about two models"),
    ("mine.toml model=DIR", "a claim of your own"),
    ("final-block-jump late-mlps-erase model=DIR", "several claims, one measurement"),
    ("long-context-contracts", "the same run as gainlens compare"),
)
_FIELDS: Final = (
    "prompts", "long_prompts", "backend", "dtype", "device", "batch_tokens", "revision",
    "allow_extrapolation", "trust_remote_code",
)  # fmt: skip
_COMPARE_ROLES: Final = ("short", "long", "reference", "control")


@click.command("test", cls=ExamplesCommand, examples=EXAMPLES)
@click.argument("words", metavar="CLAIM... ROLE=MODEL...", nargs=-1, required=True)
@with_options(
    (
        *options_of(MeasureSpec, *_FIELDS),
        click.option("--tokens", metavar="N,N,...", help="Prompts of exactly N tokens."),
        *options_of(Rule, "min_prompts"),
        *OUTPUT_OPTIONS,
    )
)  # fmt: skip
@click.pass_context
def test_command(context: click.Context, words: tuple[str, ...], **flags: Any) -> None:
    """Test claims about models: names of the catalogue (`gainlens claims`) or TOML files.

    An argument with = is ROLE=MODEL.  A claim about many models takes model=MODEL several times.
    The exit status is 0 whatever the verdict.
    """
    from gainlens.claims.claim import SEED_CLAIM, read_claim

    names = [word for word in words if "=" not in word]
    models: dict[str, list[str]] = {}
    for word in words:
        role, sign, model = word.partition("=")
        if sign:
            if not role or not model:
                raise ValueError(f"{word!r} is not ROLE=MODEL, such as model=gpt2")
            models.setdefault(role, []).append(model)
    if not names:
        raise ValueError("there is no claim: give a name that `gainlens claims` lists, or a file")
    claims = [read_claim(name) for name in names]
    if names == [SEED_CLAIM]:
        _compare(context, models, flags)
        return
    if not models:
        wanted = " ".join(f"{role}=MODEL" for role in claims[0].roles or ("model",))
        raise ValueError(f"there is no model to test {claims[0].name} on: add {wanted}")
    used = {role for claim in claims for role in claim.roles or ("model",)}
    unknown = [role for role in models if role not in used]
    if unknown:
        raise ValueError(
            f"no claim here has the role {unknown[0]!r}; the roles are {', '.join(sorted(used))}"
        )
    tokens = lengths_of(flags["tokens"])
    spec = MeasureSpec(
        name=claims[0].name if len(claims) == 1 else f"{claims[0].name}-and-{len(claims) - 1}-more",
        models=tuple(model for of_role in models.values() for model in of_role),
        tokens=tokens,
        rule=Rule(**given(flags, ("confidence", "resamples", "seed", "min_prompts"))),
        **given(flags, _FIELDS),
    )

    def run() -> "Measurement":
        from gainlens.runs.testing import test

        return test(claims, models, tokens=tokens, spec=spec)

    write_and_print(context, flags, spec, run)


def _compare(context: click.Context, models: dict[str, list[str]], flags: dict[str, Any]) -> None:
    """Run `gainlens compare` on the seed's roles, with the flags that both commands have."""
    unknown = [role for role in models if role not in _COMPARE_ROLES]
    if unknown:
        raise ValueError(
            f"long-context-contracts has no role {unknown[0]!r}; the roles are short, long, "
            "reference and control"
        )
    for role in ("short", "long"):
        if len(models.get(role, ())) > 1:
            raise ValueError(f"the role {role} takes one model")
    words = [f"--{role}={model}" for role, given in models.items() for model in given]
    for parameter in compare_command.params:
        value = flags.get(parameter.name or "")
        if isinstance(parameter, click.Option) and parameter.is_flag and value:
            words.append(parameter.opts[0])
        elif value not in (None, (), False):
            words.append(f"{parameter.opts[0]}={value}")
    if flags["out"] is None:
        words.append(f"--out={Path('runs') / 'long-context-contracts'}")
    with compare_command.make_context("compare", words, parent=context.parent) as compare:
        compare_command.invoke(compare)


_CLAIMS_EXAMPLES: Final = (
    ("", "every claim of the catalogue"),
    ("final-block-jump", "one in full"),
)


@click.command("claims", cls=ExamplesCommand, examples=_CLAIMS_EXAMPLES)
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def claims_command(name: str | None, as_json: bool) -> None:
    """List the claims that ship with gainlens, or print one."""
    from gainlens.claims.claim import CATALOGUE, catalogue, read_claim
    from gainlens.claims.sentences import subject_of
    from gainlens.report.claims import catalogue_table
    from gainlens.report.terminal import console_of, rich_table

    if name is not None:
        claim = read_claim(name)
        if as_json:
            click.echo(claim.model_dump_json(indent=2, by_alias=True, exclude_defaults=True))
        else:
            path = Path(name) if name.endswith(".toml") else CATALOGUE / f"{name}.toml"
            click.echo(path.read_text("utf-8").rstrip())
            click.echo(f"\n# Measured: {subject_of(claim)}")
            if claim.intervention is not None:
                click.echo(f"# Done: {claim.intervention.words}")
                click.echo(f"# Control: {claim.intervention.control_words}")
    elif as_json:
        shipped = [claim.model_dump(mode="json", by_alias=True, exclude_defaults=True)
                   for claim in catalogue().values()]  # fmt: skip
        click.echo(json.dumps(shipped, indent=2, ensure_ascii=False))
    else:
        console = console_of()
        console.print(rich_table(catalogue_table(list(catalogue().values())), console.width))
