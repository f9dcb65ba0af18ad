"""Test that flags, spec and command line say the same."""

import shlex

import pytest
from pydantic import ValidationError

from gainlens.cli.compare import compare_command, run
from gainlens.cli.flags import command_line, spec_of
from gainlens.core.spec import ComparisonSpec, Rule

FLAGS = [
    [],
    ["--preset", "llama", "--prompts", "long", "--tokens", "512", "--device", "cuda"],
    ["--short", "a b/c", "--long", "d;e", "--control", "f", "--reference", "g", "--seed", "3"],
    ["--estimand", "all/median/path", "--confidence", "0.9", "--min-prompts", "8",
     "--allow-extrapolation", "--dtype", "bfloat16", "--backend", "native", "--revision", "main"],
    ["--sweep", "8", "--sweep-how", "zero", "--sweep-how", "mean", "--sweep-heads"],
    ["--theta", "1000", "--theta", "1e6", "--ablate", "blocks.-1.attn.hook_z[2]=mean",
     "--ablate", "blocks.0.hook_mlp_out=zero"],
    ["--no-interventions"],
    ["--controls"],
]  # fmt: skip


def context_of(arguments):
    return compare_command.make_context("gainlens compare", list(arguments))


@pytest.mark.parametrize("flags", FLAGS)
def test_the_command_line_asks_for_the_same_run(flags):
    context = context_of(flags)
    words = shlex.split(command_line(context))
    assert words[:2] == ["gainlens", "compare"]
    assert spec_of(context_of(words[2:]).params) == spec_of(context.params)


def test_the_command_line_leaves_out_where_the_result_goes():
    words = command_line(context_of(["--out", "somewhere", "--quiet", "--seed", "7"]))
    assert words == "gainlens compare --seed 7"


def test_every_default_is_the_specs():
    spec = spec_of(context_of([]).params)
    defaults = ComparisonSpec(name=spec.name, models=spec.models)
    assert spec == defaults
    assert spec.rule == Rule()


def test_every_bound_is_the_specs(capsys):
    for flag, value in (("--min-prompts", "2"), ("--resamples", "199"), ("--confidence", "0.5")):
        assert run(compare_command, [flag, value]) == 2
        assert flag in capsys.readouterr().err
        field = flag[2:].replace("-", "_")
        with pytest.raises(ValidationError):
            Rule.model_validate({field: float(value)})


def test_a_flag_that_takes_one_value_is_given_once(capsys):
    assert run(compare_command, ["--seed", "1", "--seed=2"]) == 2
    assert "twice" in capsys.readouterr().err
    assert spec_of(context_of(["--theta", "1e3", "--theta", "1e6"]).params).theta == (1e3, 1e6)
