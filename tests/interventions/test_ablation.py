"""Ablations: what they replace, where, in which order, and that nothing stays behind."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from planting.checkpoints import BACK_ENDS, HOOKED, TRANSFORMER_LENS
from planting.hooks import hooks_of, prompts_of

from gainlens.activations.capturing import capture
from gainlens.interventions.ablation import ablate
from gainlens.interventions.addresses import address_of
from gainlens.metrics.decomposition import decompose
from gainlens.models.hooks import reading
from gainlens.models.loading import load
from gainlens.models.sites import sites_of

LENGTHS = (12, 30, 9, 7)
LAYERS, HEADS, D_MODEL = 4, 4, 32


@pytest.fixture(scope="module")
def loaded(make_checkpoint):
    folder = make_checkpoint()
    return {backend: load(folder, backend=backend) for backend in BACK_ENDS}


@pytest.fixture(params=BACK_ENDS)
def model(request, loaded):
    found = loaded[request.param].model
    before = hooks_of(found)
    yield found
    assert hooks_of(found) == before


def passed_at(model, name, tokens):
    """The activation that readers see at a site."""
    sites, seen = sites_of(model), []
    with torch.no_grad(), reading([(sites.site(name), seen.append)]):
        sites.run(tokens)
    return seen[0]


TOKENS = torch.tensor([[256, 5, 9, 3, 77], [256, 8, 8, 1, 2]])


def same(tensor, hook):
    return tensor


def test_identity_changes_nothing_to_the_bit(model):
    plain = capture(model, prompts_of(LENGTHS))
    sites = {f"blocks.{block}.hook_{site}": same for block in range(LAYERS)
             for site in ("resid_pre", "attn_out", "mlp_out", "resid_post")}  # fmt: skip
    with ablate(model, {**sites, "blocks.1.attn.hook_z": same, "blocks.2.attn.hook_z[1]": same}):
        under = capture(model, prompts_of(LENGTHS))
    np.testing.assert_array_equal(under.gram, plain.gram)
    np.testing.assert_array_equal(under.normed, plain.normed)


def test_zero_is_seen_by_capture_and_gone_afterwards(model):
    plain = capture(model, prompts_of(LENGTHS))
    with ablate(model, {"blocks.-1.hook_mlp_out": "zero"}):
        under = capture(model, prompts_of(LENGTHS))
    assert (under.column("mm")[-1] == 0).all()
    np.testing.assert_array_equal(under.gram[:, :-1], plain.gram[:, :-1])
    np.testing.assert_allclose(under.column("yy")[-1], under.column("xa_sq")[-1], rtol=1e-6)
    assert (capture(model, prompts_of(LENGTHS)).gram == plain.gram).all()


@pytest.fixture(scope="module")
def plain_gram(loaded):
    return {name: capture(loaded[name].model, prompts_of(LENGTHS)).gram for name in BACK_ENDS}


@pytest.mark.parametrize("how", ["zero", "mean", "resample"])
@pytest.mark.parametrize(
    "site", ["hook_resid_pre", "hook_attn_out", "attn.hook_z[2]", "hook_mlp_out", "hook_resid_post"]
)
def test_back_ends_agree_under_an_ablation(loaded, plain_gram, site, how):
    """rtol 1e-5: float32 forward passes through differently ordered attention."""
    prompts = prompts_of(LENGTHS)
    found = []
    for backend in BACK_ENDS:
        model = loaded[backend].model
        plain = plain_gram[backend]
        with ablate(model, {f"blocks.-2.{site}": how}, reference=prompts):
            if (how, site) == ("zero", "hook_resid_post"):  # the last block adds to nothing
                found.append(capture(model, prompts).gram[:, :3])
            else:
                found.append(capture(model, prompts).gram)
        assert not np.allclose(found[-1], plain[:, : found[-1].shape[1]], rtol=1e-3)
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-5, atol=1e-6 * found[0].max())


def test_mean_is_that_of_the_reference_by_position_class(model):
    prompts = prompts_of(LENGTHS)
    name = "blocks.2.hook_mlp_out"
    alone = [passed_at(model, name, torch.from_numpy(ids)[None])[0] for ids in prompts.tokens]
    first = torch.stack([row[0] for row in alone]).double().mean(0).float()
    later = torch.cat([row[1:] for row in alone]).double().mean(0).float()
    with ablate(model, {name: "mean"}, reference=prompts):
        seen = passed_at(model, name, TOKENS)
    for row in seen:
        torch.testing.assert_close(row[0], first)
        torch.testing.assert_close(row[1:], later.expand(4, -1))


def test_resample_gives_another_prompts_activation_at_the_same_position(model):
    """A prompt of the reference gets the first long enough of the others; never its own."""
    prompts = prompts_of(LENGTHS)
    name = "blocks.1.hook_attn_out"
    alone = [passed_at(model, name, torch.from_numpy(ids)[None])[0] for ids in prompts.tokens]
    donors = {}
    for seed in range(4):
        for mine, ids in enumerate(prompts.tokens):
            with ablate(model, {name: "resample"}, reference=prompts, seed=seed):
                got = passed_at(model, name, torch.from_numpy(ids)[None])[0]
            others = [row for index, row in enumerate(alone) if index != mine]
            first = {
                index
                for index, row in enumerate(alone)
                if index != mine and torch.allclose(got[0], row[0]) and
                torch.allclose(got[: min(len(row), len(got))], row[: len(got)], atol=1e-6)
            }  # fmt: skip
            assert first, "its beginning is one donor's"
            donors.setdefault(mine, set()).update(first)
            for position, vector in enumerate(got):
                places = [row[position] for row in others if len(row) > position]
                places = places or [max(others, key=len)[-1]]
                assert any(torch.allclose(vector, place, atol=1e-6) for place in places)
    assert any(len(found) > 1 for found in donors.values()), "the seed chooses"


def test_resample_does_not_depend_on_batching_and_repeats_under_its_seed(model):
    prompts = prompts_of(LENGTHS)
    with ablate(model, {"blocks.2.hook_mlp_out": "resample"}, reference=prompts, seed=3):
        together = capture(model, prompts)
        alone = capture(model, prompts, batch_tokens=0)
    scale = together.gram.max()
    np.testing.assert_allclose(alone.gram, together.gram, rtol=1e-5, atol=1e-6 * scale)


def test_one_head_is_all_that_a_head_address_touches(model):
    plain = passed_at(model, "blocks.1.attn.hook_z", TOKENS)
    assert plain.shape == (2, 5, HEADS, D_MODEL // HEADS)
    with ablate(model, {"blocks.1.attn.hook_z[-2]": "zero"}):
        under = passed_at(model, "blocks.1.attn.hook_z", TOKENS)
    assert (under[:, :, 2] == 0).all()
    assert (plain[:, :, 2] != 0).any()
    assert torch.equal(under[:, :, [0, 1, 3]], plain[:, :, [0, 1, 3]])


def test_all_heads_ablated_is_attention_ablated(model):
    heads = {f"blocks.3.attn.hook_z[{head}]": "zero" for head in range(HEADS)}
    with ablate(model, heads):
        one_by_one = capture(model, prompts_of(LENGTHS))
    with ablate(model, {"blocks.3.hook_attn_out": "zero"}):
        at_once = capture(model, prompts_of(LENGTHS))
    np.testing.assert_allclose(one_by_one.column("yy"), at_once.column("yy"), rtol=1e-6)


def test_positions_and_classes_restrict(model):
    prompts = prompts_of(LENGTHS)
    name = "blocks.0.hook_mlp_out"
    with ablate(model, {name: "zero"}, positions=[1, 3]):
        zero = (passed_at(model, name, TOKENS) == 0).all(-1)
    assert zero.tolist() == [[False, True, False, True, False]] * 2
    with ablate(model, {name: "zero"}, token_class="bos"):
        assert (passed_at(model, name, TOKENS) == 0).all(-1).tolist() == [[True] + [False] * 4] * 2
    with ablate(model, {name: "zero"}, token_class="ordinary", reference=prompts):
        under = capture(model, prompts)
    ordinary = decompose(capture(model, prompts)).is_ordinary
    np.testing.assert_array_equal(under.column("mm")[0] == 0, ordinary)


def test_massive_tokens_are_those_of_the_decomposition(model):
    """A planted mask, so that the class is not whatever the code finds."""
    from dataclasses import replace

    prompts = prompts_of(LENGTHS)
    found = decompose(capture(model, prompts))
    chosen = np.zeros_like(found.is_massive)
    chosen[[4, 20, 45]] = True
    planted = replace(found, is_massive=chosen)
    name = "blocks.3.hook_attn_out"
    with ablate(
        model, {name: "zero"}, token_class="massive", reference=prompts, decomposition=planted
    ):
        under = capture(model, prompts)
    np.testing.assert_array_equal(under.column("aa")[-1] == 0, chosen)


def test_a_prompt_of_unknown_classes_is_refused(model):
    with (
        pytest.raises(ValueError, match="row 0 of this batch is no prompt of the reference"),
        ablate(
            model,
            {"blocks.0.hook_mlp_out": "zero"},
            token_class="ordinary",
            reference=prompts_of(LENGTHS),
        ),
    ):
        capture(model, prompts_of(LENGTHS, seed=9))


def test_a_hook_function_gets_name_and_layer_and_may_work_in_place(model):
    calls = []

    def halve(tensor, hook):
        calls.append((hook.name, hook.layer(), tuple(tensor.shape)))
        tensor *= 0.5

    plain = passed_at(model, "blocks.2.hook_mlp_out", TOKENS)
    with ablate(model, {"blocks.-2.hook_mlp_out": halve}):
        under = passed_at(model, "blocks.2.hook_mlp_out", TOKENS)
    assert calls == [("blocks.2.hook_mlp_out", 2, (2, 5, D_MODEL))]
    assert torch.equal(under, plain * 0.5)
    with ablate(model, {"blocks.2.hook_mlp_out": halve}, positions=[1]):
        under = passed_at(model, "blocks.2.hook_mlp_out", TOKENS)
    assert torch.equal(under[:, 1], plain[:, 1] * 0.5)
    assert torch.equal(under[:, 2:], plain[:, 2:])


@pytest.mark.skipif(not HOOKED, reason="HookedTransformer was removed in TransformerLens 4.0")
@pytest.mark.parametrize(
    "site", ["blocks.1.hook_resid_pre", "blocks.2.hook_resid_mid", "blocks.1.attn.hook_pattern",
             "blocks.0.mlp.hook_post", "blocks.3.hook_attn_out"]
)  # fmt: skip
def test_equals_transformer_lens_own_hooks(loaded, site):
    model = loaded["hooked"].model

    def skew(tensor, hook):
        return tensor * (0.5 + hook.layer())

    wanted = model.run_with_hooks(TOKENS, fwd_hooks=[(site, skew)])
    with ablate(model, {site: skew}):
        assert torch.equal(model(TOKENS), wanted)
    assert not torch.allclose(model(TOKENS), wanted)


def plus_one(tensor, hook):
    return tensor + 1


def double(tensor, hook):
    return tensor * 2


def test_nested_the_inner_applies_after_the_outer(model):
    name = "blocks.1.hook_mlp_out"
    plain = passed_at(model, name, TOKENS)
    with ablate(model, {name: plus_one}):
        with ablate(model, {name: double}):
            assert torch.equal(passed_at(model, name, TOKENS), (plain + 1) * 2)
        assert torch.equal(passed_at(model, name, TOKENS), plain + 1)
    assert torch.equal(passed_at(model, name, TOKENS), plain)


def test_overlapping_sites_apply_in_the_order_of_the_mapping(model):
    whole, head = "blocks.1.attn.hook_z", "blocks.1.attn.hook_z[0]"
    with ablate(model, {head: plus_one, whole: "zero"}):
        assert (passed_at(model, whole, TOKENS) == 0).all()
    with ablate(model, {whole: "zero", head: plus_one}):
        seen = passed_at(model, whole, TOKENS)
    assert (seen[:, :, 0] == 1).all()
    assert (seen[:, :, 1:] == 0).all()


def test_inner_means_come_from_the_model_as_the_outer_leaves_it(model):
    prompts, name = prompts_of(LENGTHS), "blocks.1.hook_attn_out"
    with ablate(model, {name: "zero"}), ablate(model, {name: "mean"}, reference=prompts):
        assert (passed_at(model, name, TOKENS) == 0).all()


def test_one_site_twice_in_a_mapping_is_refused(model):
    sites = {"blocks.3.hook_mlp_out": "zero", "blocks.-1.hook_mlp_out": "zero"}
    with pytest.raises(ValueError, match=r"ablated twice in one mapping"), ablate(model, sites):
        pass


def burst(tensor, hook):
    raise RuntimeError("in mid-forward")


@pytest.mark.fault("an error inside an ablation", "goes on to the user; no hook stays")
def test_no_hook_survives_whatever_is_raised(model):
    before = hooks_of(model)
    with (
        pytest.raises(RuntimeError, match="in mid-forward"),
        ablate(model, {"blocks.0.hook_mlp_out": "zero"}),
        ablate(model, {"blocks.2.attn.hook_z": burst}),
    ):
        capture(model, prompts_of((5,)))
    assert hooks_of(model) == before
    with pytest.raises(KeyError), ablate(model, {"blocks.0.hook_mlp_out": "zero"}):
        raise KeyError("the user's own")
    assert hooks_of(model) == before
    with (
        pytest.raises(ValueError, match="needs prompts"),
        ablate(model, {"blocks.0.hook_mlp_out": "zero", "blocks.1.hook_mlp_out": "mean"}),
    ):
        pass
    assert hooks_of(model) == before


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        (lambda tensor, hook: tensor[..., :3], r"returned shape \(1, 5, 3\).*shape \(1, 5, 32\)"),
        (lambda tensor, hook: 0.0, r"returned float, .*shape \(1, 5, 32\)"),
        (lambda tensor, hook: tensor / 0, r"blocks\.1\.hook_mlp_out is not finite at index"),
    ],
)
def test_what_a_hook_function_may_not_return(model, returned, sentence):
    with (
        pytest.raises(ValueError, match=sentence),
        ablate(model, {"blocks.1.hook_mlp_out": returned}),
    ):
        capture(model, prompts_of((5,)))


@pytest.mark.parametrize(
    ("site", "sentence"),
    [
        ("blocks.1.hook_mpl_out", r"no site 'blocks\.1\.hook_mpl_out'.*blocks\.1\.hook_mlp_out"),
        ("blocks.4.hook_mlp_out", r"its blocks are 0 to 3, or -1 to -4 from the end"),
        ("blocks.-5.hook_mlp_out", r"its blocks are 0 to 3"),
        ("blocks.1.attn.hook_z[4]", r"has heads 0 to 3, and head 4 was asked for"),
        ("blocks.1.hook_mlp_out[0]", r"single heads are ablated at attn\.hook_z"),
        ("blocks.1.hook_mlp_out[x]", r"is no site"),
    ],
)
@pytest.mark.fault("an ablation of a site that is not there", "refused: what is")
def test_a_site_that_is_not_there_says_what_is(model, site, sentence):
    with pytest.raises(ValueError, match=sentence), ablate(model, {site: "zero"}):
        pass


@pytest.mark.parametrize(
    "site",
    ["attn.hook_pattern", "attn.hook_q", "hook_resid_mid", "ln1.hook_scale", "mlp.hook_post"],
)
def test_what_native_lacks_names_the_back_ends_that_have_it(loaded, site):
    name = f"blocks.2.{site}"
    assert name in sites_of(loaded[TRANSFORMER_LENS].model).sites
    with (
        pytest.raises(ValueError, match=re.escape("hooked and bridge models have it")),
        ablate(loaded["native"].model, {name: "zero"}),
    ):
        pass


def test_a_bridges_resid_mid_does_not_reach_the_stream_and_is_refused(loaded):
    with (
        pytest.raises(ValueError, match="does not reach the stream"),
        ablate(loaded["bridge"].model, {"blocks.1.hook_resid_mid": "zero"}),
    ):
        pass


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"how": "median"}, "zero, mean, resample"),
        ({"positions": [-1]}, "positions count from 0"),
        ({"positions": []}, "positions count from 0"),
        ({"token_class": "massive"}, "`reference`"),
        ({"how": "resample", "reference": prompts_of((5,))}, "at least two different prompts"),
        ({"how": "mean", "reference": prompts_of((1,))}, "no token after position 0"),
        ({"site": "blocks.1.attn.hook_pattern", "positions": [0]}, "no position axis"),
    ],
)
def test_settings_that_cannot_be(loaded, options, sentence):
    options = {"site": "blocks.1.hook_mlp_out", "how": "zero", **options}
    wanted = {options.pop("site"): options.pop("how")}
    with (
        pytest.raises(ValueError, match=sentence),
        ablate(loaded[TRANSFORMER_LENS].model, wanted, **options),
    ):
        pass


@pytest.mark.fault("an ablation that touched no token", "refused on the way out")
def test_nothing_ablated_is_an_error_on_the_way_out(model):
    prompts = prompts_of((5, 6))
    with (
        pytest.raises(ValueError, match=r"nothing was ablated at blocks\.1\.hook_mlp_out"),
        ablate(model, {"blocks.1.hook_mlp_out": "zero"}, positions=[50]),
    ):
        capture(model, prompts)
    with ablate(model, {"blocks.1.hook_mlp_out": "zero"}, positions=[50]):
        pass  # the model was not run


@pytest.mark.skipif(not HOOKED, reason="HookedTransformer was removed in TransformerLens 4.0")
@pytest.mark.fault("an ablation whose site does not fire", "refused")
def test_a_site_that_does_not_fire_is_an_error(loaded):
    with (
        pytest.raises(ValueError, match=r"blocks\.1\.attn\.hook_result: no activation passed"),
        ablate(loaded["hooked"].model, {"blocks.1.attn.hook_result": "zero"}),
    ):
        loaded["hooked"].model(TOKENS)


def test_addresses_count_from_the_end(model):
    sites = sites_of(model)
    assert address_of(sites, "blocks.-1.hook_mlp_out").name == "blocks.3.hook_mlp_out"
    assert address_of(sites, "blocks.-4.attn.hook_z[-1]").name == "blocks.0.attn.hook_z[3]"
    assert address_of(sites, "hook_embed").name == "hook_embed"
    assert address_of(sites, "L3H2").name == "blocks.3.attn.hook_z[2]"


def test_the_example_script_halves_the_last_mlp_and_leaves_nothing(
    make_checkpoint, monkeypatch, capsys
):
    script = Path(__file__).parents[2] / "examples" / "ablate.py"
    monkeypatch.setattr("sys.argv", [str(script), str(make_checkpoint())])
    monkeypatch.setattr("gainlens.load_prompts", lambda name: ["Two short texts.", "In all."])
    runpy.run_path(str(script), run_name="__main__")
    lines = [line for line in capsys.readouterr().out.splitlines() if "log gain" in line]
    before, under, after = (line.split(": ")[1] for line in lines)
    assert before == after != under
