"""Files from elsewhere: whatever is in them, a Rescore or one sentence that names the place."""

import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planting.result_files import document, replace

from gainlens.notebook.documents import DEEPEST, LARGEST_FILE
from gainlens.notebook.rescoring import rescore, to_json


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("models",), [], "holds no gains"),
        (("models",), {}, "holds no gains"),
        (("models", "llama2-7b"), 3, r'models\["llama2-7b"\] is a number'),
        (("models", "llama2-7b", "residual"), {}, r'\["llama2-7b"\].residual.norms is missing'),
        (("models", "llama2-7b", "residual", "norms"), [1.0], "norms is a list: .*at least 2"),
        (("models", "llama2-7b", "residual", "norms", 3), "3", r"residual.norms\[3\] is a string"),
        (("models", "llama2-7b", "residual", "norms", 3), True, r"norms\[3\] is true or false"),
        (("models", "llama2-7b", "residual", "norms", 3), None, r"norms\[3\] is null"),
        (("models", "llama2-7b", "residual", "norms", 3), -1.0, r"norms\[3\] is a number: .*equal"),
        (("models", "llama2-7b", "residual", "norms", 3), 1e300, r"norms\[3\] is a number: .*less"),
        (("models", "llama2-7b", "residual", "norms", 3), 1e-300, r"norms\[3\] .*at least 1e-30"),
        (("models", "llama2-7b", "residual", "norms", 3), 10**400, r"norms\[3\] is a number"),
        (("models", "llama2-7b", "residual", "norms", 3), math.nan, r"norms\[3\] is null"),
        (("models", "llama2-7b", "residual", "gains"), [1.0], "has 1 entries for 7 norms"),
        (("models", "llama2-7b", "w_u", "vocab_size"), 32000.0, "vocab_size is a number: .*int"),
        (("models", "llama2-7b", "w_u", "vocab_size"), 0, "vocab_size is a number: .*equal to 1"),
        (("models", "llama2-7b", "w_u", "frobenius_norm"), 0.0, "frobenius_norm"),
        (("models", "llama2-7b", "w_u"), {"shape": [1, 2]}, "w_u.vocab_size is missing"),
        (("models", "llama2-7b", "rope", "rope_theta"), "10000", "rope.rope_theta is a string"),
        (("models", "llama2-7b", "hf_name"), "\x1b[2J", "hf_name is a string: .*printable"),
        (("models", "llama2-7b", "hf_name"), "\ud800", "hf_name is a string: .*printable"),
        (("models", "../\x1b[2J"), {}, r'the key models\["../\?\[2J"\] should be'),
        (("models", "x" * 300), {}, "printable"),
        (("hypothesis_test",), "INVERTED", "hypothesis_test is a string"),
        (("hypothesis_test", "verdict"), ["INVERTED"], "hypothesis_test.verdict is a list"),
        (("gainlens",), {"schema": 2}, "schema 2, this gainlens reads schema 1"),
        (("gainlens",), {"schema": "1"}, "gainlens.schema is a string"),
        (("gainlens",), {"version": "1"}, "gainlens.schema is missing"),
    ],
)  # fmt: skip
@pytest.mark.fault(
    "--rescore: wrong types, NaN for a norm, negative norms, escape codes, another schema",
    "refused: the place in the document",
)
def test_what_is_wrong_is_refused_with_its_place(place, value, message):
    tree = document()
    replace(tree, place, value)
    with pytest.raises(ValueError, match=message) as caught:
        rescore(tree)
    assert_one_printable_line(caught.value)


def assert_one_printable_line(problem: ValueError) -> None:
    assert str(problem).isprintable()
    assert len(str(problem)) < 1500


@pytest.mark.parametrize("key", ["models", "hypothesis_test"])
@pytest.mark.fault("--rescore: missing keys", "refused where needed, else null with a reason")
def test_only_models_must_be_there(key):
    tree = document()
    del tree[key]
    if key == "models":
        with pytest.raises(ValueError, match="holds no gains"):
            rescore(tree)
    else:
        assert rescore(tree).pair.stated_verdict is None


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is empty"),
        (b" \n\t", "is empty"),
        (b"{", "is not JSON"),
        (b"norms: 1", "is not JSON"),
        (b"\xff\xfe{\x00}\x00", "is not UTF-8"),
        (b"\x00" * 10, "is not JSON"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
        (b'{"models": {}, "models": {}}', 'key "models" stands twice'),
        (b'{"models": NaN}', "holds no gains"),
        (b'{"a": ' + b"1" * 5000 + b"}", "is not JSON"),
        (b"[]", "the document is a list"),
        (b"null", "the document is null"),
        (b'"text"', "the document is a string"),
        (b"{}", "holds no gains"),
    ],
)
@pytest.mark.fault(
    "--rescore: empty, not JSON, UTF-16, nested 200,000 deep, a repeated key", "refused: which"
)
def test_files_that_are_no_result_are_refused(tmp_path, raw, message):
    path = tmp_path / "result.json"
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=message) as caught:
        rescore(path)
    assert str(path)[:100] in str(caught.value)
    assert_one_printable_line(caught.value)


@pytest.mark.fault("--rescore: no file, a directory, a pipe", "refused: what to give")
def test_no_file_a_directory_and_a_pipe_are_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        rescore(tmp_path / "nothing.json")
    with pytest.raises(ValueError, match="is a directory: give"):
        rescore(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="no regular file"):
        rescore(tmp_path / "pipe")
    with pytest.raises(ValueError, match="no regular file"):
        rescore(Path("nul\0byte"))


@pytest.mark.fault("--rescore: a file beyond 32 MiB", "refused unread")
def test_a_huge_file_is_refused_unread(tmp_path):
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    with pytest.raises(ValueError, match="larger than 32 MiB"):
        rescore(path)


@pytest.mark.fault("rescore: a mapping that holds itself", "refused: nested too deeply")
def test_a_mapping_that_holds_itself_is_refused():
    tree = document()
    tree["again"] = tree
    with pytest.raises(ValueError, match="too deeply"):
        rescore(tree)


def test_depth_is_bounded():
    deep: object = 1
    for _ in range(DEEPEST):
        deep = {"x": deep}
    assert rescore(document() | {"deep": deep}).pair.verdict == "INVERTED"
    with pytest.raises(ValueError, match="too deeply"):
        rescore(document() | {"deep": {"x": deep}})


def test_what_is_not_finite_elsewhere_in_the_file_is_unknown_and_no_hindrance():
    tree = document() | {"anything": [math.inf, math.nan, -math.inf]}
    assert rescore(tree).pair.verdict == "INVERTED"


NUMBERS = st.one_of(
    st.floats(), st.integers(), st.floats(0.5, 2.0),
    st.sampled_from([0, 0.0, 1, 1.0, 1e-30, 1e30, 1e-31, 1e31, 5e-324, 1e308, 10**400, -1, 10**12]),
)  # fmt: skip
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=5), st.just("\ud800"))
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
KEYS = st.sampled_from(["models", "residual", "norms", "w_u", "rope", "gainlens", "schema", "role"])
SHAPED = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=15,
)


@given(tree=st.dictionaries(KEYS, SHAPED | ANYTHING, max_size=4))
@settings(max_examples=300, deadline=None)
def test_any_mapping_gives_a_rescore_or_a_value_error(tree):
    """Files, and the notebook's document and its neighbours' changed, are for test_fuzzing.py."""
    try:
        score = rescore(tree)
    except ValueError as problem:
        assert_one_printable_line(problem)
    else:
        json.dumps(to_json(score), allow_nan=False)


@given(
    norms=st.lists(st.sampled_from([0, 1e-30, 1e-15, 1.0, 3.7, 1e30]), min_size=2, max_size=6),
    other=st.lists(st.sampled_from([0, 1e-30, 1.0, 1e30]), min_size=2, max_size=4),
    sizes=st.tuples(*[st.sampled_from([1, 7, 10**12])] * 3),
    weights=st.tuples(*[st.sampled_from([1e-30, 1.0, 1e30])] * 3),
)
@settings(max_examples=300, deadline=None)
def test_every_number_that_is_accepted_gives_finite_results(norms, other, sizes, weights):
    """The bounds of the reader suffice: nothing that it lets through overflows afterwards."""
    tree = document()
    for model, values in zip(tree["models"].values(), (norms, other), strict=True):
        model["residual"] = {"norms": values}
    tree["models"]["llama2-7b"]["w_u"] = {
        "vocab_size": sizes[0], "hidden_dim": sizes[1],
        "frobenius_norm": weights[0], "spectral_norm": weights[1],
    }  # fmt: skip
    tree["models"]["llama2-7b"]["rope"] = {"rope_theta": weights[2], "max_position": sizes[2]}
    assert json.dumps(to_json(rescore(tree)), allow_nan=False)
