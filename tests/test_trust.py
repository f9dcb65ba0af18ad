"""Check what the package may not do: read pickled weights, or give a token away.

ruff's rules S102 to S701 (pyproject.toml) forbid exec, pickle, marshal, eval, yaml.load and shells.
"""

import ast
from pathlib import Path

import pytest

from gainlens.cli.compare import compare_command, run

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src" / "gainlens").rglob("*.py"))
SECRET = "hf_QuiteSecretTokenOfNobody0123456789"


def test_weights_are_asked_for_as_safetensors_wherever_they_are_read():
    """use_safetensors=True stands beside every from_pretrained of a model."""
    calls = [
        node
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith(".from_pretrained")
        # models.adapters refuses an adapter without a safetensors file, which PEFT then reads
        and not ast.unparse(node.func).startswith(("AutoConfig", "AutoTokenizer", "Peft"))
    ]
    assert calls
    for call in calls:
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        # `file` is a GGUF file, which holds no code either
        assert given.get("use_safetensors") in ("True", "None if file else True"), ast.unparse(call)


@pytest.mark.fault("a token for the hub in the environment", "in no output, page or result")
def test_a_token_is_in_nothing_that_is_printed_or_written(
    planted_pair, one_figure, tmp_path, capfd, monkeypatch
):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", SECRET)
    out = tmp_path / "out"
    flags = [*planted_pair["prompts"], "--no-interventions", "--out", str(out)]
    assert run(compare_command, [*planted_pair["models"], *flags]) == 0
    refused = ["--short", "nobody/nothing-of-the-kind", *planted_pair["models"][2:]]
    assert run(compare_command, [*refused, *flags]) == 2
    printed = capfd.readouterr()
    assert SECRET not in printed.out + printed.err
    written = [path for path in out.rglob("*") if path.is_file()]
    assert {"result.json", "report.html"} <= {path.name for path in written}
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
