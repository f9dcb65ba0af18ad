"""The test and claims commands end to end."""

import json

import pytest
from planting.planted_blocks import TEXTS, planted_checkpoint

import gainlens
from gainlens.claims.claim import parse_claim
from gainlens.cli import testing
from gainlens.cli.compare import run

CLAIM = """
name = "mine"
statement = "The last block expands."
roles = ["model"]
[estimand]
metric = "log_gain"
blocks = "last"
[contrast]
kind = "level"
prediction = "> 0.1"
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    base = tmp_path_factory.mktemp("claims")
    planted_checkpoint(base / "grows", 1.25, lift=2.0)
    planted_checkpoint(base / "shrinks", 0.6, lift=2.0)
    (base / "prompts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    (base / "mine.toml").write_text(CLAIM, encoding="utf-8")
    return base


def flags(base, out):
    return [
        "--prompts", str(base / "prompts.txt"), "--out", str(out), "--resamples", "200",
        "--backend", "native", "--json",
    ]  # fmt: skip


def test_a_claim_of_ones_own_is_judged_by_the_planted_gain(base, tmp_path, capsys):
    words = [str(base / "mine.toml"), f"model={base / 'grows'}"]
    assert run(testing.test_command, [*words, *flags(base, tmp_path / "run")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["verdict"]["outcome"] == "SUPPORTED"
    written = json.loads((tmp_path / "run" / "result.json").read_bytes())
    assert written["verdict"] == printed["verdict"]
    assert "SUPPORTED" in (tmp_path / "run" / "report.html").read_text("utf-8")


def test_several_claims_share_one_measurement(base, tmp_path, capsys):
    words = [str(base / "mine.toml"), "late-mlps-erase", f"model={base / 'shrinks'}"]
    assert run(testing.test_command, [*words, *flags(base, tmp_path / "run")]) == 0
    found = json.loads(capsys.readouterr().out)
    outcomes = {one["claim"]: one["outcome"] for one in found["claims"]}
    assert outcomes == {"mine": "CONTRADICTED", "late-mlps-erase": "SUPPORTED"}
    assert len(found["models"]) == 1


@pytest.mark.parametrize(
    ("words", "keyword"),
    [
        (["nothing-like-it", "model=x"], "no claim"),
        (["late-mlps-erase"], "model=MODEL"),
        (["model=x"], "no claim"),
        (["late-mlps-erase", "short=x"], "role"),
        (["late-mlps-erase", "=x"], "ROLE=MODEL"),
        (["long-context-contracts", "tuned=x"], "role"),
        (["long-context-contracts", "short=x"], "--long"),
    ],
)
def test_words_that_make_no_test_are_refused_in_one_line(words, keyword, tmp_path, capsys):
    assert run(testing.test_command, [*words, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert keyword in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_the_catalogue_is_listed_and_printed(capsys):
    assert run(testing.claims_command, []) == 0
    assert "final-block-jump" in capsys.readouterr().out
    assert run(testing.claims_command, ["final-block-jump"]) == 0
    assert 'metric = "angle"' in capsys.readouterr().out
    assert run(testing.claims_command, ["--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) >= 12


def test_a_claim_is_printed_with_what_is_done_in_words(capsys):
    assert run(testing.claims_command, ["massive-zeroing-ruins"]) == 0
    printed = capsys.readouterr().out
    assert "# Done: setting massive activations to zero" in printed
    assert "# Control: setting as many random dimensions of the same tokens to zero" in printed
    parse_claim(printed)  # still a claim file


def test_the_page_has_a_badge_and_a_figure_per_claim(base, tmp_path, capsys):
    """The seed's claim on two models of one theta: its premise fails."""
    words = ["long-context-contracts", "sinks-dispensable", f"model={base / 'grows'}",
             f"short={base / 'grows'}", f"long={base / 'shrinks'}"]  # fmt: skip
    assert run(testing.test_command, [*words, *flags(base, tmp_path / "run")]) == 0
    found = json.loads(capsys.readouterr().out)["claims"]
    assert [one["outcome"] for one in found] == ["NOT TESTED", "SUPPORTED"]
    assert found[0]["effect"] is None
    assert set(found[1]["effect"]) >= {"change", "control_change", "excess", "draws"}
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert '<span class="badge not-tested">NOT TESTED</span> long-context-contracts' in page
    assert '<span class="badge supported">SUPPORTED</span> sinks-dispensable' in page
    for name in ("long-context-contracts", "sinks-dispensable"):
        assert (tmp_path / "run" / "figures" / f"claim_{name}.svg").exists()
        assert f'<figure id="figure-claim_{name}"' in page
    first = page.index("<figure ")
    assert page[first:].startswith('<figure id="figure-claim_long-context-contracts"')


def test_a_model_in_memory_is_tested(base):
    model = gainlens.load(base / "grows", backend="native")
    found = gainlens.test(base / "mine.toml", {"model": model}, TEXTS)
    assert found.verdicts[0].outcome == "SUPPORTED"
    assert found.verdicts[0].robust is False  # either half by length has fewer than 16 prompts


def test_a_metric_that_the_back_end_does_not_show_is_undetermined(base):
    model = gainlens.load(base / "grows", backend="native")
    found = gainlens.test("sinks-in-small-models", {"model": model}, TEXTS)
    assert found.verdicts[0].outcome == "UNDETERMINED"
    assert "sink" in found.verdicts[0].reasons[0]
    assert found.verdicts[0].models == {"model": "grows"}


def test_each_model_stands_in_its_own_role(base):
    """The planted model that shrinks is the tuned one: tuned minus base is negative."""
    models = {"base": base / "grows", "tuned": base / "shrinks"}
    found = gainlens.test("tuning-keeps-last-gain", models, TEXTS)
    (verdict,) = found.verdicts
    assert verdict.models == {"base": "grows", "tuned": "shrinks"}
    assert verdict.outcome == "CONTRADICTED"
    last = found.metric("log_gain").values[:, -1].mean(axis=1)
    assert last[0] > 0 > last[1]
    assert verdict.estimates[0].interval.estimate == pytest.approx(last[1] - last[0], abs=1e-9)
