"""A GGUF file gives the numbers of the same weights in a directory, or one sentence."""

import importlib.util
import sys

import numpy as np
import pytest
import torch
from planting.checkpoints import build_model, save_tokenizer
from planting.gguf_files import TINY, write_gguf

from gainlens.activations.capturing import capture
from gainlens.models.loading import load
from gainlens.weights.report import weights_report


@pytest.fixture(scope="module")
def tiny():
    return build_model(**TINY, rms_norm_eps=1e-6)


@pytest.mark.parametrize("backend", ["auto", "native"])
def test_a_gguf_file_gives_the_numbers_of_its_directory(tiny, tmp_path, backend):
    write_gguf(tmp_path / "tiny.gguf", tiny)
    tiny.save_pretrained(tmp_path / "tiny")
    save_tokenizer(tmp_path / "tiny")
    loaded = load(tmp_path / "tiny.gguf", backend=backend)
    directory = load(tmp_path / "tiny", backend=backend)
    assert loaded.checkpoint.name == "tiny"
    assert loaded.checkpoint.backend == directory.checkpoint.backend
    assert loaded.checkpoint.quantisation is None
    assert loaded.checkpoint.context == directory.checkpoint.context
    text = "def f(x): return x"
    assert loaded.tokenizer(text).input_ids == directory.tokenizer(text).input_ids
    got, want = capture(loaded, text), capture(directory, text)
    for name in ("xx", "aa", "mm", "yy"):
        np.testing.assert_array_equal(got.column(name), want.column(name))


def test_quantised_weights_are_dequantised_and_named(tiny, tmp_path):
    import gguf

    write_gguf(tmp_path / "tiny.gguf", tiny, quantise="Q8_0")
    loaded = load(tmp_path / "tiny.gguf", backend="native")
    assert loaded.checkpoint.quantisation == "Q8_0"
    stored = gguf.quants.quantize(
        tiny.lm_head.weight.detach().numpy(), gguf.GGMLQuantizationType.Q8_0
    )
    want = gguf.quants.dequantize(stored, gguf.GGMLQuantizationType.Q8_0)
    torch.testing.assert_close(loaded.model.lm_head.weight.detach(), torch.from_numpy(want))
    assert loaded.model.lm_head.weight.dtype == torch.float32


@pytest.mark.parametrize("backend", ["auto", "native"])
def test_bfloat16_is_held_in_bfloat16(tiny, tmp_path, backend):
    """Two bytes per weight, one copy of them, and the numbers of the directory in bfloat16."""
    write_gguf(tmp_path / "tiny.gguf", tiny, quantise="Q8_0")
    loaded = load(tmp_path / "tiny.gguf", backend=backend, dtype="bfloat16")
    weights = [*loaded.model.parameters(), *loaded.hf_model.parameters()]
    assert {weight.dtype for weight in weights} == {torch.bfloat16}
    storages = {weight.untyped_storage().data_ptr(): weight.untyped_storage() for weight in weights}
    held = sum(storage.nbytes() for storage in storages.values())
    wanted = sum(2 * weight.numel() for weight in tiny.parameters())
    assert wanted <= held <= 1.1 * wanted
    loaded.hf_model.save_pretrained(tmp_path / "same")
    save_tokenizer(tmp_path / "same")
    want = capture(load(tmp_path / "same", backend=backend, dtype="bfloat16"), "def f(x): x")
    np.testing.assert_array_equal(capture(loaded, "def f(x): x").column("yy"), want.column("yy"))


def test_weights_of_a_gguf_file_are_those_of_its_directory(tiny, tmp_path):
    write_gguf(tmp_path / "tiny.gguf", tiny)
    tiny.save_pretrained(tmp_path / "tiny")
    got, want = (weights_report(tmp_path / name) for name in ("tiny.gguf", "tiny"))
    np.testing.assert_allclose(got[0].folded_spectrum, want[0].folded_spectrum, rtol=1e-6)
    assert got[1].rope_theta == want[1].rope_theta
    assert not got[0].tied


def refused(path, keyword):
    with pytest.raises(ValueError, match=keyword) as caught:
        load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
@pytest.mark.fault("a GGUF file that is cut off", "refused: download it again")
def test_a_truncated_gguf_is_refused(tiny, tmp_path, share):
    path = tmp_path / "tiny.gguf"
    write_gguf(path, tiny)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path, "cut off")


@pytest.mark.fault("a GGUF file without its tokenizer", "refused: no tokenizer")
def test_a_gguf_without_tokenizer_is_refused(tiny, tmp_path):
    write_gguf(tmp_path / "tiny.gguf", tiny, tokenizer=False)
    refused(tmp_path / "tiny.gguf", "converted together with its tokenizer")


@pytest.mark.fault("a GGUF file of an architecture that transformers cannot read", "it is named")
def test_a_gguf_of_another_architecture_is_named(tiny, tmp_path):
    write_gguf(tmp_path / "tiny.gguf", tiny, architecture="rwkv6")
    refused(tmp_path / "tiny.gguf", "rwkv6")


@pytest.mark.parametrize("source", ["model.gguf", "owner/repository/model.gguf"])
@pytest.mark.fault("a GGUF file without the package that reads it", "refused: what to install")
def test_without_the_package_the_user_is_told_what_to_install(tmp_path, monkeypatch, source):
    find_spec = importlib.util.find_spec
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "gguf", None)  # an import fails
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "gguf" else find_spec(name)
    )
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(40))
    refused(source, r"gainlens\[gguf\]")


@pytest.mark.fault("a file that only calls itself GGUF", "refused: download it again")
def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGML" + bytes(40))
    refused(tmp_path / "model.gguf", "no GGUF file")
