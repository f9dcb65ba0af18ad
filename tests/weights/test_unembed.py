"""W_U with planted singular values, against numpy's SVD and its own identities."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gainlens.activations.subspaces import visible_share
from gainlens.weights import unembed as unembed_module
from gainlens.weights.unembed import spectrum_report, subspace_rank, subspaces, unembed_gram
from gainlens.weights.unembed_file import read_final_norm, read_unembedding

D_VOCAB, D_MODEL = 700, 48


def orthonormal(rows: int, columns: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(rows, columns)))[0]


def planted(sigma: np.ndarray, d_vocab: int = D_VOCAB, seed: int = 0) -> torch.Tensor:
    """W = U diag(sigma) V^T in float64."""
    left, right = orthonormal(d_vocab, len(sigma), seed), orthonormal(len(sigma), len(sigma), 9)
    return torch.from_numpy((left * sigma) @ right.T)


def weight_of(seed: int = 0, d_vocab: int = D_VOCAB, d_model: int = D_MODEL) -> torch.Tensor:
    """Random rows about a common row, float32: like a trained lm_head, raw and centred differ."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(d_vocab, d_model)) + 0.7 * rng.normal(size=d_model)
    return torch.from_numpy(rows).float()


def report_of(weight: torch.Tensor, ln_weight: torch.Tensor | None = None):
    return spectrum_report(unembed_gram(weight), ln_weight, tied=False)


def test_planted_singular_values_come_back():
    sigma = np.geomspace(100, 0.01, D_MODEL)
    report = report_of(planted(sigma))
    np.testing.assert_allclose(report.spectrum, sigma, rtol=1e-7)  # 1e-15 (1e4)^2
    assert report.spectral_norm == pytest.approx(100, rel=1e-12)
    share = sigma**2 / (sigma**2).sum()
    assert report.stable_rank == pytest.approx(1 / share[0], rel=1e-9)
    assert report.effective_rank == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-9)


def test_equal_singular_values_have_full_rank():
    report = report_of(planted(np.full(D_MODEL, 3.0)))
    assert report.stable_rank == pytest.approx(D_MODEL)
    assert report.effective_rank == pytest.approx(D_MODEL)


def test_all_three_spectra_equal_numpys():
    weight, ln_weight = weight_of(), torch.rand(D_MODEL) + 0.5
    report = report_of(weight, ln_weight)
    matrix = weight.double().numpy()
    for spectrum, reference in (
        (report.spectrum, matrix),
        (report.centred_spectrum, matrix - matrix.mean(axis=0)),
        (report.folded_spectrum, matrix * ln_weight.double().numpy()),
    ):
        expected = np.linalg.svd(reference, compute_uv=False)
        np.testing.assert_allclose(spectrum, expected, rtol=1e-11)
    assert np.abs(report.folded_spectrum / report.spectrum - 1).max() > 0.1


def test_small_singular_values_are_nearer_than_a_float32_svd():
    weight = planted(np.geomspace(100, 1e-4, D_MODEL)).float()  # σ_max/σ up to 1e6
    reference = np.linalg.svd(weight.double().numpy(), compute_uv=False)
    error = np.abs(report_of(weight).spectrum / reference - 1)
    assert (error <= 1e-14 * (reference[0] / reference) ** 2).all()
    single = torch.linalg.svdvals(weight).numpy()  # numpy's would compute in float64
    assert error.max() < np.abs(single / reference - 1).max()


@pytest.mark.parametrize("common", [0, 3, 30])
def test_a_large_head_is_as_near_as_its_docstring_says(monkeypatch, common):
    monkeypatch.setattr(unembed_module, "_FLOAT64_WORK", 0)
    weight = weight_of(d_vocab=5000) + common
    matrix = weight.double().numpy()
    report = report_of(weight)
    for spectrum, reference in (
        (report.spectrum, np.linalg.svd(matrix, compute_uv=False)),
        (report.centred_spectrum, np.linalg.svd(matrix - matrix.mean(axis=0), compute_uv=False)),
    ):
        error = np.abs(spectrum / reference - 1)
        assert (error < 1e-7 + 2e-9 * (report.centred_spectrum[0] / reference) ** 2).all()
        assert error.max() > 1e-11  # the other path would be there: this one was taken
    assert report.mean_row_norm == pytest.approx(np.linalg.norm(matrix, axis=1).mean(), rel=1e-12)


def test_notebooks_numbers_are_torchs_norms():
    weight = weight_of()
    report = report_of(weight)
    assert report.shape == (D_VOCAB, D_MODEL)
    assert (report.vocab_size, report.hidden_dim) == (D_VOCAB, D_MODEL)
    for ours, notebook in (
        (report.frobenius_norm, torch.linalg.norm(weight)),
        (report.spectral_norm, torch.linalg.norm(weight, ord=2)),
        (report.mean_row_norm, torch.linalg.norm(weight, dim=1).mean()),
    ):
        assert ours == pytest.approx(float(notebook), rel=1e-6)  # float32
    assert np.sum(report.spectrum**2) == pytest.approx(report.frobenius_norm**2, rel=1e-12)


def test_a_common_row_is_the_top_direction_and_centring_takes_it_off():
    weight = weight_of() + 20 * torch.from_numpy(orthonormal(D_MODEL, 1, 3)[:, 0]).float()
    report = report_of(weight)
    assert report.mean_row_cosine > 0.999
    assert report.spectral_norm > 10 * report.centred_spectrum[0]
    assert report.edge_ratio > 3
    balanced = torch.cat([weight, -weight])  # its mean row is 0: nothing to take off
    without = report_of(balanced)
    np.testing.assert_allclose(without.centred_spectrum, without.spectrum, rtol=1e-9)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("common", "low", "high"), [(0.05, 0, 0.5), (0.2, 0.5, 1), (1, 0.99, 1)])
def test_cosine_of_the_top_direction_is_numpys(common, low, high, seed):
    weight = weight_of(seed)
    weight -= (1 - common) * weight.mean(dim=0)
    matrix = weight.double().numpy()
    top, mean = np.linalg.svd(matrix)[2][0], matrix.mean(axis=0)
    expected = abs(top @ mean) / np.linalg.norm(mean)
    assert report_of(weight).mean_row_cosine == pytest.approx(expected, rel=1e-9)
    assert low < expected < high


def test_a_direction_that_is_not_there_has_no_cosine():
    weight = weight_of()
    assert np.isnan(report_of(torch.cat([weight, -weight])).mean_row_cosine)
    assert np.isnan(report_of(planted(np.full(D_MODEL, 3.0))).mean_row_cosine)
    assert report_of(weight_of(d_model=1)).mean_row_cosine == pytest.approx(1)


def test_a_random_matrix_sits_at_its_edge():
    report = report_of(torch.from_numpy(np.random.default_rng(0).normal(size=(10_000, 200))))
    assert report.edge_ratio == pytest.approx(1, abs=0.01)
    assert report.sigma_per_sqrt_vocab == pytest.approx(1 + np.sqrt(200 / 10_000), abs=0.01)


@pytest.mark.parametrize("shape", [(30, 48), (48, 48), (1000, 3)])
def test_every_shape_has_min_singular_values(shape):
    weight = weight_of(d_vocab=shape[0], d_model=shape[1])
    report = report_of(weight)
    expected = np.linalg.svd(weight.double().numpy(), compute_uv=False)
    assert report.spectrum.shape == (min(shape),)
    np.testing.assert_allclose(report.spectrum, expected, rtol=1e-9)


def test_blocks_and_tiles_change_nothing(monkeypatch):
    weight = weight_of()
    whole = unembed_gram(weight)
    monkeypatch.setattr(unembed_module, "_BLOCK_ELEMENTS", 64 * D_MODEL)
    monkeypatch.setattr(unembed_module, "_TILE", 20)
    pieces = unembed_gram(weight)
    torch.testing.assert_close(pieces.gram, whole.gram, rtol=1e-13, atol=1e-10)
    torch.testing.assert_close(pieces.mean_row, whole.mean_row, rtol=1e-13, atol=1e-15)
    assert pieces.mean_row_norm == pytest.approx(whole.mean_row_norm, rel=1e-13)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_read_exactly(dtype):
    weight = weight_of().to(dtype)
    expected = np.linalg.svd(weight.double().numpy(), compute_uv=False)
    np.testing.assert_allclose(report_of(weight).spectrum, expected, rtol=1e-11)


def test_a_transposed_view_is_read_like_a_copy():
    w_u = weight_of().T.contiguous()  # as TransformerLens keeps it
    torch.testing.assert_close(unembed_gram(w_u.T).gram, unembed_gram(w_u.T.contiguous()).gram)


@pytest.mark.fault("a W_U that is all zero, not finite or not in memory", "refused: which")
def test_weights_without_a_spectrum_are_refused():
    weight = weight_of()
    weight[3, 4] = torch.nan
    with pytest.raises(ValueError, match=r"Frobenius norm nan.*lm_head is complete"):
        unembed_gram(weight)
    with pytest.raises(ValueError, match="Frobenius norm 0"):
        unembed_gram(torch.zeros(10, 4))
    with pytest.raises(ValueError, match=r"meta device.*read_unembedding"):
        unembed_gram(torch.empty(10, 4, device="meta"))


def test_subspaces_are_numpys_of_the_centred_matrix():
    weight = weight_of() + 5
    top, bottom = subspaces(unembed_gram(weight))
    assert top.shape == bottom.shape == (D_MODEL, subspace_rank(D_MODEL)) == (48, 6)
    matrix = weight.double().numpy()
    right = np.linalg.svd(matrix - matrix.mean(axis=0))[2]
    np.testing.assert_allclose(np.abs(right[:6] @ top.numpy()), np.eye(6), atol=1e-5)
    np.testing.assert_allclose(np.abs(right[::-1][:6] @ bottom.numpy()), np.eye(6), atol=1e-5)


def test_a_rank_outside_the_model_is_refused():
    unembed = unembed_gram(weight_of())
    for rank in (0, D_MODEL + 1):
        with pytest.raises(ValueError, match=f"rank {rank} .*give 1 to d_model = 48"):
            subspaces(unembed, rank)


def test_visible_share_of_planted_writes():
    top, bottom = subspaces(unembed_gram(weight_of()))
    inside, outside = (basis @ torch.randn(top.shape[1], 5) for basis in (top, bottom))
    write = torch.stack([inside.T, outside.T, (2 * inside + 0 * outside).T])
    share = visible_share(write, top)
    assert share.shape == (3, 5)
    torch.testing.assert_close(share[0], torch.ones(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(share[1], torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(share[2], share[0], atol=1e-5, rtol=0)
    mixed = inside / inside.norm(dim=0) + outside / outside.norm(dim=0)
    torch.testing.assert_close(visible_share(mixed.T, top), torch.full((5,), 0.5))


def test_shares_of_a_full_basis_sum_to_one_and_chance_is_k_over_d():
    top, bottom = subspaces(unembed_gram(weight_of()), D_MODEL // 2)
    write = torch.from_numpy(np.random.default_rng(7).normal(size=(4000, D_MODEL))).bfloat16()
    seen, unseen = visible_share(write, top), visible_share(write, bottom)
    torch.testing.assert_close(seen + unseen, torch.ones(4000), atol=1e-5, rtol=0)
    few, _ = subspaces(unembed_gram(weight_of()))
    # share is Beta(3, 21): standard deviation 0.066, of the mean over 4000 tokens 0.001
    assert float(visible_share(write, few).mean()) == pytest.approx(6 / D_MODEL, abs=0.005)


def test_visible_share_in_slices_and_of_nothing(monkeypatch):
    top, _ = subspaces(unembed_gram(weight_of()))
    write = torch.randn(2, 7, D_MODEL)
    whole = visible_share(write, top)
    monkeypatch.setattr("gainlens.activations.subspaces._SLICE_ELEMENTS", 3 * D_MODEL)
    torch.testing.assert_close(visible_share(write, top), whole)
    assert visible_share(torch.zeros(1, D_MODEL), top).isnan().all()


def test_share_does_not_depend_on_the_writes_size():
    top, _ = subspaces(unembed_gram(weight_of()))
    write = torch.randn(9, D_MODEL)
    torch.testing.assert_close(visible_share(1000 * write, top), visible_share(write, top))


def save_checkpoint(folder: Path, shards: dict[str, dict[str, torch.Tensor]], **config) -> Path:
    """A directory of safetensors shards with their index; one shard named model has no index."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    for shard, tensors in shards.items():
        save_file(tensors, folder / f"{shard}.safetensors")
    if set(shards) != {"model"}:
        weight_map = {
            name: f"{shard}.safetensors" for shard, held in shards.items() for name in held
        }
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": weight_map}))
    return folder


HEAD, EMBEDDING, NORM = torch.randn(20, 4), torch.randn(20, 4), torch.randn(4)


@pytest.mark.parametrize(
    ("head", "embedding", "norm"),
    [
        ("lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"),
        ("embed_out.weight", "gpt_neox.embed_in.weight", "gpt_neox.final_layer_norm.weight"),
        (None, "transformer.wte.weight", "transformer.ln_f.weight"),
        (None, "wte.weight", "ln_f.weight"),
        (None, "model.embed_tokens.weight", "model.norm.weight"),
    ],
)
def test_head_and_norm_are_found_under_every_name(tmp_path, head, embedding, norm):
    tensors = {embedding: EMBEDDING, norm: NORM, "model.layers.0.norm.weight": torch.ones(4)}
    folder = save_checkpoint(tmp_path / "one", {"model": tensors | ({head: HEAD} if head else {})})
    weight, tied = read_unembedding(folder)
    torch.testing.assert_close(weight, HEAD if head else EMBEDDING)
    assert tied is (head is None)
    torch.testing.assert_close(read_final_norm(folder), NORM)


def test_only_the_shard_with_the_head_is_opened(tmp_path):
    shards = {"a": {"model.embed_tokens.weight": EMBEDDING}, "b": {"lm_head.weight": HEAD}}
    folder = save_checkpoint(tmp_path / "two", shards, tie_word_embeddings=False)
    (folder / "a.safetensors").unlink()
    weight, tied = read_unembedding(folder)
    torch.testing.assert_close(weight, HEAD)
    assert not tied
    (folder / "b.safetensors").unlink()
    with pytest.raises(ValueError, match=r"b\.safetensors is missing, and lm_head\.weight"):
        read_unembedding(folder)


def test_a_checkpoint_without_a_final_norm_has_no_weight_of_it(tmp_path):
    nothing = save_checkpoint(tmp_path / "none", {"model": {"lm_head.weight": HEAD}})
    assert read_final_norm(nothing) is None


def test_what_cannot_be_read_is_refused(tmp_path):
    untied = {"model": {"model.embed_tokens.weight": EMBEDDING}}
    folder = save_checkpoint(tmp_path / "untied", untied, tie_word_embeddings=False)
    with pytest.raises(ValueError, match=r"no unembedding.*says that it is not tied"):
        read_unembedding(folder)
    empty = save_checkpoint(tmp_path / "empty", {"model": {"other": NORM}})
    with pytest.raises(ValueError, match=r"no unembedding.*no embedding.*causal language model"):
        read_unembedding(empty)
    (empty / "model.safetensors").rename(empty / "pytorch_model.bin")
    with pytest.raises(ValueError, match="only safetensors are read"):
        read_unembedding(empty)
    with pytest.raises(ValueError, match=r"no config\.json"):
        read_unembedding(tmp_path / "absent")


def test_the_gram_matrix_is_that_of_the_weights_on_either_side_of_the_diagonal():
    """eigvalsh reads one triangle; whoever else takes the matrix reads both."""
    weight = weight_of()
    expected = weight.double().T @ weight.double()
    torch.testing.assert_close(unembed_gram(weight).gram, expected, rtol=1e-12, atol=1e-9)


def test_float64_up_to_the_stated_work_and_float32_beyond(monkeypatch):
    weight = weight_of()
    exact = weight.double().T @ weight.double()
    work = D_VOCAB * D_MODEL**2
    error = []
    for limit in (work, work - 1):
        monkeypatch.setattr(unembed_module, "_FLOAT64_WORK", limit)
        error.append(float((unembed_gram(weight).gram - exact).abs().max()))
    assert error[0] < 1e-9 < 1e-6 < error[1]


def test_a_vocabulary_smaller_than_the_model_leaves_a_finite_effective_rank():
    report = report_of(planted(np.array([2.0, 2.0, 0.0, 0.0]), d_vocab=40))
    assert report.effective_rank == pytest.approx(2)
    assert report.stable_rank == pytest.approx(2)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_whether_a_direction_is_there_does_not_depend_on_the_scale(scale):
    weight = weight_of().double()
    plain, scaled = report_of(weight), report_of(scale * weight)
    assert scaled.mean_row_cosine == pytest.approx(plain.mean_row_cosine, rel=1e-9)
    assert np.isnan(report_of(planted(np.full(D_MODEL, 3.0 * scale))).mean_row_cosine)
    assert np.isnan(report_of(torch.cat([scale * weight, -scale * weight])).mean_row_cosine)


def test_the_report_says_whether_it_is_tied_and_its_subspaces_rank():
    for tied in (True, False):
        report = spectrum_report(unembed_gram(weight_of()), None, tied=tied)
        assert (report.tied, report.subspace_rank) == (tied, 6)
    assert [subspace_rank(d) for d in (4, 8, 15, 16)] == [1, 1, 1, 2]
    unembed = unembed_gram(weight_of())
    assert [subspaces(unembed, rank)[0].shape[1] for rank in (1, D_MODEL)] == [1, D_MODEL]


@pytest.mark.fault("a W_U that is tied to the embedding", "caveat: tied is true in the result")
def test_a_head_of_its_own_is_tied_where_the_config_says_so(tmp_path):
    both = {"model": {"lm_head.weight": HEAD, "model.embed_tokens.weight": HEAD.clone()}}
    assert read_unembedding(save_checkpoint(tmp_path / "a", both, tie_word_embeddings=True))[1]
    assert not read_unembedding(save_checkpoint(tmp_path / "b", both))[1]
    differ = {"model": {"lm_head.weight": HEAD, "model.embed_tokens.weight": EMBEDDING}}
    assert not read_unembedding(save_checkpoint(tmp_path / "c", differ, tie_word_embeddings=True))[
        1
    ]


def test_sentences_are_whole(tmp_path):
    empty = save_checkpoint(tmp_path / "empty", {"model": {"other": NORM}})
    untied = {"model": {"model.embed_tokens.weight": EMBEDDING}}
    folder = save_checkpoint(tmp_path / "untied", untied, tie_word_embeddings=False)
    with pytest.raises(ValueError, match=r"embed_out\.weight, and its config says that it is not "):
        read_unembedding(folder)
    sentences = {
        "holds no unembedding: none of lm_head.weight, embed_out.weight, and no embedding; "
        "give the directory of a causal language model": lambda: read_unembedding(empty),
        "W_U of shape 10 x 4 has squared Frobenius norm 0, so it has no spectrum; check that the "
        "checkpoint's lm_head is complete": lambda: unembed_gram(torch.zeros(10, 4)),
        "the weights of lm_head are not in memory (offloaded to the meta device); read them from "
        "the checkpoint's directory with read_unembedding": lambda: unembed_gram(
            torch.empty(10, 4, device="meta")
        ),
    }
    for sentence, call in sentences.items():
        with pytest.raises(ValueError, match=rf"(^|empty ){re.escape(sentence)}$"):
            call()
