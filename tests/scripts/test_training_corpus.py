"""The twins' corpus and tokenizer: nothing twice, nothing held out trained on, one BOS."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from training import corpus, tokens
from transformers import AutoTokenizer


def write_wheel(folder: Path, name: str, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("# a comment\none==1.0 --hash=sha256:0\ntwo==1.0 --hash=sha256:0  # held out\n")
    return path


def test_corpus_drops_duplicates_and_never_trains_on_held_out_files(
    listed: Path, tmp_path: Path
) -> None:
    one = {
        "one/b.py": b"x = 1\r\n",
        "one/a.py": b"y = 2",
        "one/copy.py": b"y = 2\n\n",
        "one/shared.py": b"z = 3\n",
        "one/made.py": b"# This file was AUTO-GENERATED\nq = 1\n",
        "one/large.py": b"#" * (corpus.MAX_FILE_BYTES + 1),
        "one/latin.py": b"\xff = 1\n",
        "one/empty.py": b"\n",
        "one/data.txt": b"not python",
    }
    write_wheel(tmp_path, "one", one)
    write_wheel(tmp_path, "two", {"two/shared.py": b"z = 3\n"})
    built = corpus.build(listed, tmp_path)
    assert built.train == (("# file: one/a.py\ny = 2\n", "# file: one/b.py\nx = 1\n"),)
    assert built.held_out == (("# file: two/shared.py\nz = 3\n",),)
    reasons = ("too large", "not utf-8", "empty", "generated", "duplicate")
    assert built.dropped == dict(zip(reasons, (1, 1, 1, 1, 2), strict=True))
    assert built.sha256 != replace(built, held_out=built.train, train=built.held_out).sha256


def test_corpus_refuses_standard_library_text(listed: Path, tmp_path: Path) -> None:
    write_wheel(tmp_path, "one", {"one/json.py": Path(json.__file__).read_bytes()})
    write_wheel(tmp_path, "two", {"two/a.py": b"a = 1\n"})
    with pytest.raises(ValueError, match="standard library"):
        corpus.build(listed, tmp_path)


def test_corpus_says_which_wheel_is_missing(listed: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"0 wheels of two==1\.0"):
        corpus.build(listed, tmp_path)
    listed.write_text("one>=1\n")
    with pytest.raises(ValueError, match="name==version"):
        corpus.read_requirements(listed)


TOKENIZER = tokens.train_tokenizer(["def f(x):\n    return x\n" * 20], vocabulary=300)


@given(st.text())
def test_tokenizer_gives_any_text_back_behind_one_bos(text: str) -> None:
    ids = TOKENIZER.encode(text.replace(tokens.BOS, "").replace(tokens.EOS, "")).ids
    assert ids[0] == tokens.BOS_ID
    assert tokens.BOS_ID not in ids[1:]
    assert TOKENIZER.decode(ids[1:]) == text.replace(tokens.BOS, "").replace(tokens.EOS, "")


def test_saved_tokenizer_and_streams(tmp_path: Path) -> None:
    tokens.save_tokenizer(TOKENIZER, tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("x").input_ids[0] == tokens.BOS_ID
    stream, file_tokens = tokens.encode(TOKENIZER, [["a <s> b", "c"], ["d"]])
    assert len(file_tokens) == 3
    assert file_tokens.sum() == len(stream) - 2  # an EOS after each package
    assert (stream == tokens.BOS_ID).sum() == 0  # a spelt-out BOS is text
    assert (stream == tokens.EOS_ID).nonzero()[0].tolist()[-1] == len(stream) - 1
    assert TOKENIZER.decode(stream[stream > 1].tolist()) == "a <s> bcd"
    tokens.write_stream(tmp_path / "s.xz", stream)
    assert (tokens.read_stream(tmp_path / "s.xz") == stream).all()
