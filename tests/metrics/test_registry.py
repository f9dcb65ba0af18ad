"""Compare every metric with vectors whose norms and angles are computed directly."""

import dataclasses
import sys

import numpy as np
import pytest
from planting.captures import LENGTHS, capture_of
from scipy.spatial.distance import cosine as scipy_cosine_distance

import gainlens
from gainlens.metrics.builtin import BUILT_IN
from gainlens.metrics.decomposition import decompose
from gainlens.metrics.metric import columns_of, metric_values
from gainlens.metrics.prompts import reduce_metric
from gainlens.metrics.reductions import reduce_gains
from gainlens.metrics.registry import METRICS, load_metric, metric_named

BLOCKS, D_MODEL, HEADS = 3, 16, 4
TOKENS = sum(LENGTHS)


@pytest.fixture
def vectors() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    shape = (BLOCKS, TOKENS, D_MODEL)
    return rng.normal(size=shape), 0.4 * rng.normal(size=shape), 0.3 * rng.normal(size=shape)


@pytest.fixture
def gains(vectors):
    return decompose(capture_of(*vectors))


@pytest.fixture
def own_metrics():
    """Leave the registry as it was."""
    yield
    for name in set(METRICS) - set(BUILT_IN):
        del METRICS[name]


def _norm(vector):
    return np.linalg.norm(vector, axis=-1)


def _cosine(u, v):
    flat = zip(u.reshape(-1, D_MODEL), v.reshape(-1, D_MODEL), strict=True)
    return np.array([1 - scipy_cosine_distance(*pair) for pair in flat]).reshape(u.shape[:-1])


DIRECT = {
    "log_gain": lambda x, a, m, y: np.log(_norm(y) / _norm(x)),
    "angle": lambda x, a, m, y: np.arccos(_cosine(x, y)) / np.pi,
    "influence": lambda x, a, m, y: 1 - _cosine(x, y),
    "attention_write": lambda x, a, m, y: _norm(a) / _norm(x),
    "mlp_write": lambda x, a, m, y: _norm(m) / _norm(x + a),
    "write": lambda x, a, m, y: _norm(a + m) / _norm(x),
    "attention_cosine": lambda x, a, m, y: _cosine(x, a),
    "mlp_cosine": lambda x, a, m, y: _cosine(x, m),
    "norm": lambda x, a, m, y: _norm(y),
    "max_component": lambda x, a, m, y: np.abs(y).max(axis=-1),
    "headroom": lambda x, a, m, y: np.log2(
        float(np.finfo(np.float16).max) / np.abs(y).max(axis=-1)
    ),
}


@pytest.mark.parametrize("name", DIRECT)
def test_a_metric_of_columns_is_the_formula_on_the_vectors(vectors, gains, name):
    direct = DIRECT[name](*vectors, sum(vectors))
    np.testing.assert_allclose(metric_values(METRICS[name], gains), direct, rtol=1e-6, atol=1e-9)


def test_the_two_parts_sum_to_the_log_gain(gains):
    parts = sum(metric_values(METRICS[name], gains) for name in ("attention", "mlp"))
    np.testing.assert_allclose(parts, metric_values(METRICS["log_gain"], gains), atol=1e-12)


def test_a_parallel_mlp_is_measured_against_the_block_s_input(vectors):
    x, _, m = vectors
    parallel = decompose(dataclasses.replace(capture_of(*vectors), parallel=True))
    np.testing.assert_allclose(
        metric_values(METRICS["mlp_write"], parallel), _norm(m) / _norm(x), rtol=1e-9
    )


PLANTED = {
    "no writes": (0.0, 0.0, {"log_gain": 0, "angle": 0, "influence": 0, "write": 0}),
    "turned round": (-2.0, 0.0, {"log_gain": 0, "angle": 1, "influence": 2, "attention_write": 2,
                                 "attention_cosine": -1, "mlp_write": 0, "write": 2}),
    "halved by the MLP": (0.5, -1.0, {"log_gain": np.log(0.5), "angle": 0, "mlp_cosine": -1,
                                      "attention_cosine": 1, "mlp_write": 2 / 3, "write": 0.5}),
}  # fmt: skip
"""Writes as multiples of the stream, and what follows by hand."""


@pytest.mark.parametrize("case", PLANTED)
def test_writes_along_the_stream_give_the_numbers_that_follow_by_hand(vectors, case):
    attention, mlp, expected = PLANTED[case]
    x = vectors[0]
    planted = decompose(capture_of(x, attention * x, mlp * x))
    for name, value in expected.items():
        values = metric_values(METRICS[name], planted)
        # arccos loses half of the digits at 1
        np.testing.assert_allclose(values, value, atol=1e-7, err_msg=name)


def test_final_norm_belongs_to_the_last_block(vectors, gains):
    norm_out = _norm(sum(vectors)[-1])
    np.testing.assert_allclose(
        metric_values(METRICS["final_norm"], gains), np.log(2.0 / norm_out), rtol=1e-12
    )
    reduced = reduce_metric("final_norm", gains, "all")
    assert np.isnan(reduced[:-1]).all()
    assert np.isfinite(reduced[-1]).all()


def test_sinks_are_per_head_and_their_share_counts_heads_above_three_tenths(vectors):
    sink = np.full((BLOCKS, HEADS, len(LENGTHS)), 0.1)
    sink[1, :3] = 0.31
    sink[:, :, 1] = np.nan  # the prompt of one token
    gains = decompose(dataclasses.replace(capture_of(*vectors), sink=sink))
    assert metric_values(METRICS["sink"], gains).shape == sink.shape
    share = reduce_metric("sink_share", gains)
    np.testing.assert_array_equal(share[:, 0], [0.0, 0.75, 0.0])
    assert np.isnan(share[:, 1]).all()
    np.testing.assert_allclose(reduce_metric("sink", gains)[1, 2], (3 * 0.31 + 0.1) / 4)


def test_visible_weighs_each_write_by_its_squared_norm(vectors):
    x, a, m = vectors
    basis = np.linalg.qr(np.random.default_rng(2).normal(size=(D_MODEL, 5)))[0]
    inside = [np.square(write[-1] @ basis).sum(-1) for write in (a, m)]
    outside = [np.square(write[-1]).sum(-1) for write in (a, m)]
    visible = np.stack([part / whole for part, whole in zip(inside, outside, strict=True)])
    gains = decompose(dataclasses.replace(capture_of(x, a, m), visible=visible))
    np.testing.assert_allclose(
        metric_values(METRICS["visible"], gains), sum(inside) / sum(outside), rtol=1e-9
    )


@pytest.mark.parametrize("token_class", ["bos", "ordinary", "all"])
@pytest.mark.parametrize("over", ["mean", "median", "last_token"])
def test_reductions_are_numpy_s_on_each_prompt_s_tokens(gains, over, token_class):
    values, mask = metric_values(METRICS["angle"], gains), gains.tokens_of(token_class)
    take = {"mean": np.mean, "median": np.median, "last_token": lambda v, axis: v[:, -1]}[over]
    for prompt, reduced in enumerate(reduce_metric("angle", gains, token_class, over).T):
        chosen = values[:, mask & (gains.prompt == prompt)]
        if chosen.size:
            np.testing.assert_allclose(reduced, take(chosen, axis=1))
        else:
            assert np.isnan(reduced).all()


def test_log_gain_is_reduced_as_reduce_gains_does(gains):
    for reduction in METRICS["log_gain"].reductions:
        np.testing.assert_array_equal(
            reduce_metric("log_gain", gains, "all", reduction),
            reduce_gains(gains, "all", reduction).log_gain,
        )
    with pytest.raises(ValueError, match="geomean"):
        reduce_metric("angle", gains, over_tokens="geomean")


def test_tokens_without_a_direction_do_not_count(vectors):
    x, a, m = vectors
    a = a.copy()
    a[:, 2] = 0
    gains = decompose(capture_of(x, a, m))
    values = metric_values(METRICS["attention_cosine"], gains)
    assert np.isnan(values[:, 2]).all()
    others = values[:, [0, 1, *range(3, LENGTHS[0])]]
    np.testing.assert_allclose(
        reduce_metric("attention_cosine", gains, "all")[:, 0], others.mean(axis=1)
    )


def test_a_metric_of_one_s_own_works_by_name(gains, own_metrics):
    @gainlens.metric(unit="nats", neutral=0.0, definition="ln |x+a|/|x|", source="here")
    def after_attention(xx, xa_sq):
        return np.log(xa_sq / xx) / 2

    assert metric_named("after_attention").unit == "nats"
    expected = np.log(gains.capture.column("xa_sq") / gains.capture.column("xx")) / 2
    np.testing.assert_allclose(metric_values(METRICS["after_attention"], gains), expected)
    assert reduce_metric("after_attention", gains).shape == (BLOCKS, len(LENGTHS))


def test_an_extra_column_is_read_by_its_name(vectors, own_metrics):
    extra = {"surprise": np.arange(BLOCKS * TOKENS, dtype=float).reshape(BLOCKS, TOKENS)}
    gains = decompose(dataclasses.replace(capture_of(*vectors), extra=extra))
    gainlens.metric(unit="1", neutral=None, definition="surprise")(_surprise)
    np.testing.assert_array_equal(metric_values(METRICS["_surprise"], gains), extra["surprise"])


def _surprise(surprise):
    return surprise


@pytest.mark.parametrize(
    ("function", "pieces"),
    [
        (lambda xx: xx[:, 1:], ["(3, 15)", "(3, 16)"]),
        (lambda xx: xx[0], ["(16,)", "(3, 16)"]),
        (lambda xx: np.where(xx == xx[1, 2], np.nan, xx), ["nan", "(1, 2)"]),
        (lambda xx: np.full_like(xx, np.inf), ["inf"]),
        (lambda xy: xy, ["'xy'", "nearest is"]),
        (lambda sink: sink, ["'sink'", "patterns"]),
    ],
    ids=["length", "shape", "nan", "infinite", "column", "not captured"],
)
@pytest.mark.fault(
    "a metric returns a wrong shape, NaN or another length", "refused with both shapes and its name"
)
def test_a_wrong_result_is_refused_with_the_metric_s_name(gains, own_metrics, function, pieces):
    function.__name__ = "wrong"
    gainlens.metric(unit="1", neutral=0.0, definition="wrong")(function)
    with pytest.raises(ValueError, match="'wrong'") as refusal:
        reduce_metric("wrong", gains)
    assert not [piece for piece in pieces if piece not in str(refusal.value)]


@pytest.mark.fault("a metric that nobody knows", "the nearest name is given")
def test_an_unknown_metric_names_the_nearest(gains):
    with pytest.raises(ValueError, match="nearest is influence"):
        reduce_metric("influense", gains)


def test_a_built_in_name_cannot_be_taken(own_metrics):
    with pytest.raises(ValueError, match="built-in"):
        gainlens.metric(unit="1", neutral=0.0, definition="mine")(_named_angle())


def _named_angle():
    def angle(xx):
        return xx

    return angle


def test_a_metric_is_loaded_from_a_module_of_the_working_directory(
    tmp_path, monkeypatch, gains, own_metrics
):
    (tmp_path / "my_metrics.py").write_text(
        'import gainlens\n\n\ndef plain(xx):\n    """|x|^2."""\n    return xx\n\n\n'
        '@gainlens.metric(unit="squared", neutral=None, definition="of y")\n'
        "def decorated(yy):\n    return yy\n\n\nvalue = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert metric_named("my_metrics:plain").definition == "|x|^2."
    assert load_metric("my_metrics:decorated").unit == "squared"
    np.testing.assert_array_equal(
        metric_values(METRICS["plain"], gains), gains.capture.column("xx")
    )
    for wrong in ("my_metrics:nonesuch", "my_metrics:value", "no_such_module:f", ":f"):
        with pytest.raises(ValueError, match="metric"):
            metric_named(wrong)


def test_every_built_in_metric_states_what_it_is(gains):
    available = {*columns_of(gains), "sink", "visible", "token_loss", "skip_loss"}
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.definition
        assert metric.unit
        assert set(metric.columns) <= available
