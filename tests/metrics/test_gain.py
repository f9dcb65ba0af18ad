"""The algebra of gain.py against vectors, and its identities."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from planting.captures import LENGTHS, capture_of

from gainlens.activations.gram import CHUNK_ELEMENTS, gram_columns
from gainlens.core.vocabulary import GRAM_COLUMNS, REDUCTIONS, SPLITS, TOKEN_CLASSES
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.massive import massive_tokens
from gainlens.metrics.reductions import reduce_gains, reduce_norms, reduce_splits
from gainlens.metrics.splits import cosines, head_split, log_mean, split_log_gain
from gainlens.records.capture import Capture
from gainlens.report.explorer import of_blocks, of_tokens
from gainlens.results.lazy import decompose_each

LAYERS, D_MODEL = 3, 16


@pytest.fixture
def vectors() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (LAYERS, sum(LENGTHS), D_MODEL)
    return rng.normal(size=shape), 0.4 * rng.normal(size=shape), 0.3 * rng.normal(size=shape)


def test_gram_kernel_equals_float64_inner_products(vectors):
    capture = capture_of(*vectors)
    tensors = [torch.from_numpy(v).float() for v in (*vectors, sum(vectors))]
    kernel = gram_columns(*tensors).double().permute(2, 0, 1).numpy()
    np.testing.assert_allclose(kernel, capture.gram, rtol=2e-5, atol=1e-5)  # float32 inputs


def test_gram_kernel_accumulates_bfloat16_in_float32():
    """4,096 ones sum to 4,096; in bfloat16 the sum would stall at 256."""
    ones = torch.ones(1, 4096, dtype=torch.bfloat16)
    assert gram_columns(ones, ones, ones, ones)[0, :3].tolist() == [4096.0] * 3


def test_gram_kernel_in_slices_equals_at_once(monkeypatch, vectors):
    tensors = [torch.from_numpy(v).float() for v in (*vectors, sum(vectors))]
    at_once = gram_columns(*tensors)
    monkeypatch.setitem(CHUNK_ELEMENTS, "cpu", 3 * D_MODEL)
    assert torch.equal(gram_columns(*tensors), at_once)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("token_class", TOKEN_CLASSES)
def test_parts_sum_to_the_log_gain_under_every_reduction(vectors, split, reduction, token_class):
    capture = capture_of(*vectors)
    gains = reduce_gains(decompose(capture, split=split), token_class, reduction)
    np.testing.assert_allclose(gains.attention + gains.mlp, gains.log_gain, atol=1e-13)
    assert np.isnan(gains.remainder).sum() == np.isnan(gains.log_gain).sum()


@pytest.mark.parametrize("split", SPLITS)
def test_a_component_that_writes_nothing_has_no_part(vectors, split):
    x, a, _ = vectors
    result = decompose(capture_of(x, a, np.zeros_like(a)), split=split)
    np.testing.assert_allclose(result.mlp, 0, atol=1e-15)
    np.testing.assert_allclose(result.attention, result.log_gain, atol=1e-14)


def test_logmean_split_is_linear_in_the_write(vectors):
    """Attention's part is the sum of its heads' parts: half the write, half the part."""
    x, a, m = vectors
    whole = decompose(capture_of(x, a, m))
    halves = decompose(capture_of(x, a / 2, m + a / 2))
    np.testing.assert_allclose(halves.log_gain, whole.log_gain, atol=1e-14)
    np.testing.assert_allclose(halves.attention, whole.attention / 2, atol=1e-14)


def test_logmean_is_finite_where_the_mlp_alone_would_vanish(vectors):
    """x + m = 0 sends shapley to infinity; logmean stays finite."""
    x, a, _ = vectors
    assert np.isfinite(decompose(capture_of(x, a, -x)).attention).all()


def test_scaling_the_stream_leaves_gains_and_parts_alone(vectors):
    one = decompose(capture_of(*vectors))
    scaled = decompose(capture_of(*(1000 * v for v in vectors)))
    np.testing.assert_allclose(scaled.log_gain, one.log_gain, atol=1e-13)
    np.testing.assert_allclose(scaled.attention, one.attention, atol=1e-13)


def test_planted_gain_and_signs():
    """Attention adds 0.5 x and the MLP takes 0.75 x away: gain 0.75, parts of either sign."""
    x = np.random.default_rng(1).normal(size=(1, 4, D_MODEL))
    result = decompose(capture_of(x, 0.5 * x, -0.75 * x, (4,)))
    np.testing.assert_allclose(np.exp(result.log_gain), 0.75)
    assert (result.attention > 0).all()
    assert (result.mlp < 0).all()
    path = decompose(capture_of(x, 0.5 * x, -0.75 * x, (4,)), split="path")
    np.testing.assert_allclose(path.attention, np.log(1.5))
    np.testing.assert_allclose(path.mlp, np.log(0.5))


def test_cosines_show_erasing_as_negative(vectors):
    x, a, _ = vectors
    found = cosines(capture_of(x, a, -0.5 * x))
    np.testing.assert_allclose(found["mlp"], -1)
    assert np.isnan(cosines(capture_of(x, 0 * a, -0.5 * x))["attention"]).all()


@given(st.floats(1e-6, 1e6), st.floats(-0.999, 1e3))
def test_log_mean_lies_between_geometric_and_arithmetic_mean(p, change):
    q = p * (1 + change)
    low, high = np.sqrt(p * q), (p + q) / 2
    value = log_mean(np.array([p]), np.array([q]))[0]
    assert low * (1 - 1e-12) <= value <= high * (1 + 1e-12)


def test_log_mean_is_smooth_where_its_series_takes_over():
    for change in (0.99e-4, 1.01e-4):
        # abs=0: pytest's default of 1e-12 would hide the series' third term, 4e-14 here
        assert log_mean(np.array([3.0]), np.array([3.0 * (1 + change)]))[0] == pytest.approx(
            3.0 * change / np.log1p(change), rel=1e-14, abs=0
        )


def test_massive_needs_ten_times_the_median_at_some_input_and_is_never_position_zero(vectors):
    x, a, m = (v.copy() for v in vectors)
    x[1, 4] *= 100
    x[0, 0] *= 100
    x[2, 11] *= 2
    found = massive_tokens(capture_of(x, a, m))
    assert np.flatnonzero(found).tolist() == [4]
    assert 11 in np.flatnonzero(massive_tokens(capture_of(x, a, m), ratio=1.5))


def test_classes_partition_the_tokens(vectors):
    x, a, m = vectors
    x[0, 4] *= 100
    result = decompose(capture_of(x, a, m))
    total = sum(result.tokens_of(name).astype(int) for name in ("bos", "massive", "ordinary"))
    assert (total == 1).all()
    assert result.tokens_of("all").all()


def test_reductions_against_their_definitions(vectors):
    capture = capture_of(*vectors)
    result = decompose(capture)
    gain = np.exp(result.log_gain)[:, 1:9]  # ordinary tokens of prompt 0
    norm_in, norm_out = result.norm_in[:, 1:9], result.norm_out[:, 1:9]
    expected = {
        "geomean": np.exp(np.log(gain).mean(1)),
        "median": np.sqrt(np.sort(gain, axis=1)[:, 3] * np.sort(gain, axis=1)[:, 4]),
        "ratio_of_means": norm_out.mean(1) / norm_in.mean(1),
        "frobenius": np.linalg.norm(norm_out, axis=1) / np.linalg.norm(norm_in, axis=1),
        "last_token": gain[:, -1],
    }
    for reduction, value in expected.items():
        found = reduce_gains(result, "ordinary", reduction).log_gain
        np.testing.assert_allclose(np.exp(found[:, 0]), value, rtol=1e-12)
        assert np.isnan(found[:, 1]).all()  # prompt 1 is a lone position 0: no ordinary token


def test_notebook_last_gain_is_block_times_final_norm(vectors):
    """The identity that the report shows: under ratio of means the two factors multiply."""
    capture = capture_of(*vectors)
    result = decompose(capture)
    every = result.tokens_of("all")
    last, normed = slice(-1, None), capture.normed[None]

    def reduced(before, after):
        return reduce_norms(before, after, capture.prompt, every, "ratio_of_means")

    block = reduced(result.norm_in[last], result.norm_out[last])
    norm = reduced(result.norm_out[last], normed)
    np.testing.assert_allclose(reduced(result.norm_in[last], normed), block + norm, atol=1e-13)


@pytest.mark.fault("a residual stream of norm 0", "refused: block, position and prompt")
def test_a_stream_of_norm_zero_is_refused_with_its_place(vectors):
    x, a, m = vectors
    x[2, 3] = a[2, 3] = m[2, 3] = 0
    with pytest.raises(ValueError, match=r"block 2 .* position 3 of prompt 0"):
        decompose(capture_of(x, a, m))


@pytest.mark.fault("captured numbers that are not finite", "refused: block, position and prompt")
def test_non_finite_gram_is_refused(vectors):
    x, a, m = vectors
    a[1, 2, 0] = np.inf
    with np.errstate(invalid="ignore"):
        capture = capture_of(x, a, m)
    with pytest.raises(ValueError, match=r"block 1 .* position 2"):
        decompose(capture)


def stream(norms, a=0.0, m=0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x of the given norms [block, token] along one axis; a and m along two others."""
    x, attention, mlp = np.zeros((3, *np.shape(norms), D_MODEL))
    x[..., 0] = norms
    attention[..., 1], mlp[..., 2] = a, m
    return x, attention, mlp


def test_massive_is_from_ten_times_the_median_of_its_own_block_on():
    """Exactly ten times counts; a block of larger norms does not raise another block's median."""
    norms = [[1, 1, 1, 1, 10], [100, 100, 100, 999, 100]]
    capture = capture_of(*stream(norms, a=1.0), lengths=(5,))
    assert np.flatnonzero(massive_tokens(capture)).tolist() == [4]
    assert np.flatnonzero(decompose(capture).is_massive).tolist() == [4]
    wide = decompose(capture, massive_ratio=9.9)
    assert np.flatnonzero(wide.is_massive).tolist() == [3, 4]
    assert not decompose(capture, massive_ratio=10.1).is_massive.any()


def test_a_decomposition_carries_its_split_its_remainder_and_the_final_norm(vectors):
    x, a, m = vectors
    capture = capture_of(x, a, m)
    capture.gram[GRAM_COLUMNS.index("yy")] *= 1.21  # a block that loses a tenth to rounding
    result = decompose(capture, split="logmean")
    lost = decompose(capture_of(x, a, m))
    np.testing.assert_allclose(result.log_gain - lost.log_gain, np.log(1.1))
    parts = result.attention + result.mlp
    assert np.abs(result.remainder).max() > 0.01
    np.testing.assert_allclose(parts + result.remainder, result.log_gain, atol=1e-13)
    np.testing.assert_allclose(np.exp(result.final_norm), 2.0 / result.norm_out[-1])
    assert result.split == "logmean"
    np.testing.assert_array_equal(result.prompt, capture.prompt)
    np.testing.assert_array_equal(result.position, capture.position)
    gains = reduce_gains(result, "all")
    assert np.abs(gains.remainder).max() > 0.01
    np.testing.assert_allclose(gains.attention + gains.mlp + gains.remainder, gains.log_gain)


def test_defaults_are_the_primary_estimand(vectors):
    capture = capture_of(*vectors)
    result = decompose(capture)
    assert result.split == "logmean"
    default = reduce_gains(result)
    assert (default.token_class, default.reduction) == ("ordinary", "geomean")
    named = reduce_gains(result, "ordinary", "geomean")
    np.testing.assert_array_equal(default.log_gain, named.log_gain)


@pytest.mark.parametrize("gone", ["x", "y"])
def test_a_stream_that_vanishes_on_one_side_of_a_block_is_refused(gone):
    x, a, m = stream(np.ones((1, 3)), a=1.0)
    if gone == "x":
        x[0, 1] = 0
    else:
        a[0, 1], m[0, 1] = 0, -x[0, 1]
    with pytest.raises(ValueError, match=r"leave that prompt out$"):
        decompose(capture_of(x, a, m, (3,)))
    small = stream(np.full((1, 3), 1e-3), a=1e-3)  # small is not nothing
    np.testing.assert_allclose(decompose(capture_of(*small, (3,))).log_gain, np.log(2) / 2)


def test_cosine_of_a_block_is_that_of_its_input_and_output(vectors):
    x, a, m = vectors
    y = x + a + m
    expected = (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)
    np.testing.assert_allclose(cosines(capture_of(x, a, m))["block"], expected)
    mlp = (x * m).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(m, axis=-1)
    np.testing.assert_allclose(cosines(capture_of(x, a, m))["mlp"], mlp)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_the_median_is_numpys_of_each_block_and_prompts_of_a_class_stand_alone(count):
    """Prompt 0 has no ordinary token, prompt 2 has no massive one: neither stops the others."""
    rng = np.random.default_rng(count)
    lengths = (1, count + 1, count + 1)
    writes = 1 + rng.random((2, sum(lengths)))
    capture = capture_of(*stream(np.ones_like(writes), a=writes), lengths)
    result = decompose(capture)
    found = reduce_gains(result, "ordinary", "median").log_gain
    assert np.isnan(found[:, 0]).all()
    for prompt in (1, 2):
        own = result.log_gain[:, (capture.prompt == prompt) & (capture.position > 0)]
        np.testing.assert_allclose(found[:, prompt], np.median(own, axis=1))


def test_the_last_prompt_may_lack_the_class_under_every_reduction(vectors):
    capture = capture_of(*(v[:, :4] for v in vectors), lengths=(3, 1))
    result = decompose(capture)
    for reduction in REDUCTIONS:
        gains = reduce_gains(result, "ordinary", reduction)
        for values in (gains.log_gain, gains.attention, gains.mlp):
            assert np.isnan(values).tolist() == [[False, True]] * LAYERS


@pytest.mark.parametrize("reduction", ["frobenius", "ratio_of_means"])
def test_split_of_a_ratio_of_sums_against_its_definition(vectors, reduction):
    """Each split adds up whichever way it is taken, so each is held to its own formula."""
    x, a, m = (v[:, :5] for v in vectors)
    capture = capture_of(x, a, m, (5,))
    power = 2 if reduction == "frobenius" else 1

    def log_size(vector):
        return np.log((np.linalg.norm(vector, axis=-1) ** power).sum(-1)) / power

    sizes = {name: log_size(v) for name, v in
             {"x": x, "xa": x + a, "xm": x + m, "y": x + a + m}.items()}  # fmt: skip
    found = {
        split: reduce_gains(decompose(capture, split=split), "all", reduction) for split in SPLITS
    }
    path = sizes["xa"] - sizes["x"]
    shapley = (path + sizes["y"] - sizes["xm"]) / 2
    y = x + a + m
    norms = [np.linalg.norm(v, axis=-1) for v in (x, y)]
    share = (a * (x + y)).sum(-1) / (norms[0] + norms[1]) ** (2 - power)
    total = [(norm**power).sum(-1) for norm in norms]
    mean = (total[1] - total[0]) / np.log(total[1] / total[0])
    logmean = share.sum(-1) / mean / power
    for split, expected in {"path": path, "shapley": shapley, "logmean": logmean}.items():
        np.testing.assert_allclose(found[split].attention[:, 0], expected, rtol=1e-9)
        assert (found[split].token_class, found[split].reduction) == ("all", reduction)


def test_heads_of_an_attention_have_parts_that_sum_to_its_own(vectors):
    """Attention's write cut into heads of 0.5, 0.3 and 0.2 of it and something of their own."""
    x, a, m = vectors
    own = np.random.default_rng(3).normal(size=(2, *a.shape))
    heads = np.stack([0.5 * a + own[0], 0.3 * a + own[1], 0.2 * a - own[0] - own[1]], axis=1)
    y = x + a + m
    columns = [(heads * other[:, None]).sum(-1) for other in (x, y)] + [(heads**2).sum(-1)]
    plain = capture_of(x, a, m)
    capture = dataclasses.replace(plain, heads=np.stack(columns, axis=2))
    parts = head_split(capture)
    attention = decompose(capture).attention
    np.testing.assert_allclose(parts.sum(axis=1), attention, atol=1e-13)
    size = [(v * v).sum(-1) for v in (x, y)]
    mean = (size[1] - size[0]) / np.log(size[1] / size[0])
    onto = (heads[:, 0] * (x + y)).sum(-1) / mean / 2
    np.testing.assert_allclose(parts[:, 0], onto, atol=1e-13)
    with pytest.raises(ValueError, match=r"^this capture has no heads: make it with capture\(.*"):
        head_split(plain)


@pytest.fixture
def whole(vectors) -> Capture:
    """A capture that lacks nothing."""
    rng = np.random.default_rng(1)
    tokens = sum(LENGTHS)
    return dataclasses.replace(
        capture_of(*vectors),
        visible=rng.uniform(size=(2, tokens)),
        null=rng.uniform(size=(2, tokens)),
        sink=rng.uniform(size=(LAYERS, 4, len(LENGTHS))),
        heads=rng.normal(size=(LAYERS, 4, 3, tokens)),
        token_text=tuple(f"t{index}" for index in range(tokens)),
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("token_class", TOKEN_CLASSES)
def test_all_splits_at_once_and_some_blocks_at_a_time_give_the_same(whole, token_class, reduction):
    tokens = decompose(whole)
    parts = {split: split_log_gain(whole, split) for split in SPLITS}
    together = reduce_splits(tokens, parts, token_class, reduction)
    for split in SPLITS:
        alone = reduce_gains(decompose(whole, split=split), token_class, reduction)
        for name in ("log_gain", "attention", "mlp", "remainder"):
            np.testing.assert_array_equal(
                getattr(together[split], name), getattr(alone, name), err_msg=split
            )
        assert (alone.token_class, alone.reduction) == (token_class, reduction)
    pieces = [of_blocks(tokens, slice(start, start + 2)) for start in (0, 2)]
    log_gains = [reduce_gains(piece, token_class, reduction).log_gain for piece in pieces]
    assert [len(each) for each in log_gains] == [2, 1]
    np.testing.assert_array_equal(np.concatenate(log_gains), together[SPLITS[0]].log_gain)


def test_some_blocks_and_some_tokens_are_those_of_the_whole(whole):
    own = of_blocks(decompose(whole), slice(1, 3))
    some = own.capture
    for name in ("top_value", "top_index", "sink", "heads"):
        np.testing.assert_array_equal(getattr(some, name), getattr(whole, name)[1:3])
    np.testing.assert_array_equal(some.gram, whole.gram[:, 1:3])
    np.testing.assert_array_equal(own.remainder, decompose(whole).remainder[1:3])
    np.testing.assert_array_equal(own.norm_in, decompose(whole).norm_in[1:3])
    assert some.normed is whole.normed
    later = of_tokens(decompose(whole), slice(4, 12)).capture
    for name in ("prompt", "position", "token_id", "normed"):
        np.testing.assert_array_equal(getattr(later, name), getattr(whole, name)[4:12])
    for name in ("gram", "visible", "null", "heads"):
        np.testing.assert_array_equal(getattr(later, name), getattr(whole, name)[..., 4:12])
    np.testing.assert_array_equal(later.top_index, whole.top_index[:, 4:12])
    np.testing.assert_array_equal(later.top_value, whole.top_value[:, 4:12])
    assert later.token_text == whole.token_text[4:12]
    assert later.sink is whole.sink
    bare = dataclasses.replace(whole, visible=None, null=None, heads=None, token_text=None)
    assert of_tokens(decompose(bare), slice(2)).capture.heads is None
    assert of_tokens(decompose(bare), slice(2)).capture.token_text is None
    assert of_blocks(decompose(bare), slice(1)).capture.heads is None


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("token_class", TOKEN_CLASSES)
def test_norms_alone_reduce_to_the_same_log_gain(whole, token_class, reduction):
    tokens = decompose(whole)
    gains = reduce_gains(tokens, token_class, reduction).log_gain
    norms = tokens.norm_in, tokens.norm_out
    alone = reduce_norms(*norms, whole.prompt, tokens.tokens_of(token_class), reduction)
    np.testing.assert_allclose(alone, gains, rtol=1e-12)  # log y/x against half of log y^2/x^2
    assert np.isfinite(alone[:, 0]).all() == (token_class != "massive")


def test_each_models_decomposition_is_made_under_what_was_asked(whole):
    each = decompose_each({"one": whole}, split="path", massive_ratio=1.01)
    want = decompose(whole, split="path", massive_ratio=1.01)
    np.testing.assert_array_equal(each["one"].mlp, want.mlp)
    np.testing.assert_array_equal(each["one"].is_massive, want.is_massive)
    assert (each["one"].split, want.is_massive.any()) == ("path", True)
