"""A claim file is data: what it may say, and one sentence for everything else."""

import pytest

from gainlens.claims.claim import (
    CATALOGUE,
    SEED_CLAIM,
    bounds_of,
    catalogue,
    parse_claim,
    premise_sides,
    read_claim,
)

GOOD = """
name = "mine"
statement = "The last block turns the stream."
roles = ["model"]
[estimand]
metric = "angle"
blocks = "last"
[contrast]
kind = "level"
prediction = "> 0.1"
"""


def test_the_catalogue_holds_at_least_twelve_claims_with_their_sources():
    claims = catalogue()
    assert len(claims) >= 12
    assert SEED_CLAIM in claims
    for name, claim in claims.items():
        assert (CATALOGUE / f"{name}.toml").exists()
        assert claim.source
        assert claim.statement.endswith(".")


def test_a_claim_file_is_read(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD, encoding="utf-8")
    claim = read_claim(path)
    assert (claim.name, claim.estimand.reduction, claim.margin) == ("mine", "mean", 0.0)
    assert bounds_of("in [-0.5, 2]") == ("in", -0.5, 2.0)
    assert premise_sides("long.theta >= 5e5") == (("long", "theta"), 5e5, ">=")


@pytest.mark.parametrize(
    ("old", "new", "keyword"),
    [
        ('metric = "angle"', 'metric = "angel"', "nearest is angle"),
        ('metric = "angle"', 'metric = "os:system"', "metric"),
        ('blocks = "last"', 'blocks = "lsat"', "blocks"),
        ('blocks = "last"', 'blocks = "last"\nminus = "each"', "each"),
        ('blocks = "last"', 'blocks = "last"\nover_tokens = "geomean"', "over_tokens"),
        ('blocks = "last"', 'blocks = "last"\ntokens = "odd"', "tokens"),
        ('roles = ["model"]', 'roles = ["a", "b"]', "one role"),
        ('roles = ["model"]', "", "roles or models"),
        ('roles = ["model"]', 'roles = ["model"]\nmodels = "many"', "either roles"),
        ('prediction = "> 0.1"', 'prediction = "about 1"', "prediction"),
        ('prediction = "> 0.1"', 'prediction = "in [2, 1]"', "empty"),
        ('prediction = "> 0.1"', 'prediction = "= 0"', "margin"),
        ('prediction = "> 0.1"', 'prediction = "> 1"\nmargin = -1.0', "margin"),
        ('prediction = "> 0.1"', 'prediction = "> 1"\nmargin = nan', "margin"),
        ('prediction = "> 0.1"', "", "prediction"),
        ('kind = "level"\nprediction = "> 0.1"', 'kind = "signs"', "outcomes"),
        ('kind = "level"', 'kind = "trend"', "x"),
        ('kind = "level"', 'kind = "level"\nx = "step"', "does not take 'x'"),
        ('kind = "level"', 'kind = "rank"\nwith = "nothing"', "with"),
        ('kind = "level"', 'kind = "odd"', "kind"),
        ("[estimand]", "surprise = 1\n[estimand]", "unknown key 'surprise'"),
        ("[estimand]", '[premise]\n"model.theta > import" = true\n[estimand]', "premise"),
        ("[estimand]", '[premise]\n"other.theta > 1" = true\n[estimand]', "no role"),
        ("[estimand]", '[premise]\n"model.colour > 1" = true\n[estimand]', "field"),
        ("[estimand]", '[premise]\n"model.norm > 1" = true\n[estimand]', "norm"),
        ("[estimand]", '[premise]\n"model.theta > 1" = false\n[estimand]', "true"),
        ("[estimand]", '[intervention]\nkind = "wish"\n[estimand]', "kind"),
        (
            "[estimand]",
            '[intervention]\nkind = "mask sink"\nwhy = 1\n[estimand]',
            "unknown key 'intervention.why'",
        ),
        (
            "[estimand]",
            '[intervention]\nkind = "leave out"\nblock = 1\n[estimand]',
            "'leave out' needs 'component'",
        ),
        (
            "[estimand]",
            '[intervention]\nkind = "leave out"\ncomponent = "mlp"\n[estimand]',
            "'leave out' needs 'block'",
        ),
        ("[estimand]", '[intervention]\nkind = "set massive"\n[estimand]', "needs 'to'"),
        ("[estimand]", '[intervention]\nkind = "swap theta"\n[estimand]', "needs 'theta'"),
        ("[estimand]", '[intervention]\nkind = "swap theta"\ntheta = 1.0\n[estimand]', "theta"),
        (
            "[estimand]",
            '[intervention]\nkind = "mask sink"\nto = "zero"\n[estimand]',
            "'mask sink' does not take 'to'",
        ),
        ("[estimand]", '[intervention]\nkind = "mask sink"\ndraws = 1\n[estimand]', "draws"),
        ("[estimand]", '[intervention]\nkind = "mask sink"\ndraws = 100\n[estimand]', "draws"),
        (
            "[estimand]",
            '[intervention]\nkind = "mask sink"\nagainst = "all"\n[estimand]',
            "against",
        ),
        (
            '[estimand]\nmetric = "angle"\nblocks = "last"',
            '[intervention]\nkind = "mask sink"\n[estimand]\nmetric = "angle"',
            "not 'each'",
        ),
        (
            '[estimand]\nmetric = "angle"\nblocks = "last"\n[contrast]\nkind = "level"',
            '[intervention]\nkind = "mask sink"\n[estimand]\nmetric = "angle"\nblocks = "0:"\n'
            '[contrast]\nkind = "rank"\nwith = "write"',
            "rank takes no intervention",
        ),
        (
            'metric = "angle"\nblocks = "last"',
            'metric = "loss"\nblocks = "first"',
            "loss belongs to the last block",
        ),
        ('name = "mine"', 'name = "../mine"', "name"),
        ('name = "mine"', "name = [", "TOML"),
    ],
)
def test_a_claim_that_says_something_else_is_refused_in_one_line(old, new, keyword):
    assert old in GOOD
    with pytest.raises(ValueError, match=keyword) as caught:
        parse_claim(GOOD.replace(old, new, 1))
    assert "\n" not in str(caught.value)


def test_files_that_are_no_claims_are_refused(tmp_path):
    with pytest.raises(ValueError, match="nearest is final-block-jump"):
        read_claim("final-block-jmp")
    with pytest.raises(ValueError, match="No such file"):
        read_claim(tmp_path / "none.toml")
    (tmp_path / "large.toml").write_bytes(b"# " + b"x" * 70_000)
    with pytest.raises(ValueError, match="larger"):
        read_claim(tmp_path / "large.toml")
    with pytest.raises(ValueError, match="nested"):
        parse_claim("a = " + "[" * 30_000 + "]" * 30_000)
