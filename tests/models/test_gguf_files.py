"""A GGUF file gives the numbers of the same weights in a directory, or one sentence."""

import importlib.util
import sys

import pytest

from gainlens.models.loading import load


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
    with pytest.raises(ValueError, match=r"gainlens\[gguf\]") as caught:
        load(source)
    assert "\n" not in str(caught.value)


@pytest.mark.fault("a file that only calls itself GGUF", "refused: download it again")
def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGML" + bytes(40))
    with pytest.raises(ValueError, match="no GGUF file"):
        load(tmp_path / "model.gguf")
