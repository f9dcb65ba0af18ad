"""Built-in prompt sets and readers: pinned hashes, and nothing but ValueError for bad files."""

import json
import math
import sys
import unicodedata
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import gainlens.prompts.texts
from gainlens.prompts.texts import Prompt, PromptSet, load_prompts

MIXED_SHA256 = "24cd108e15efcb5b2e1907025376fc1c15ab9c1114b9982b18a50f9d76d7cc70"


def written(tmp_path: Path, content: bytes | str, name: str = "mine.txt") -> str:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return str(path)


def texts(source: str) -> list[str]:
    return [prompt.text for prompt in load_prompts(source).prompts]


def test_notebook_is_its_one_sentence():
    assert texts("notebook") == ["The quick brown fox jumps over the lazy dog."]


def test_mixed_is_what_results_were_computed_on():
    """A changed text changes every default result: change this hash only with them."""
    mixed = load_prompts("mixed")
    assert mixed.sha256 == MIXED_SHA256
    assert mixed.built_in


def test_mixed_is_varied():
    mixed = load_prompts("mixed").prompts
    assert len(mixed) == 96
    assert len({prompt.text[:8] for prompt in mixed}) == 96
    assert all(unicodedata.is_normalized("NFC", prompt.text) for prompt in mixed)
    assert all(prompt.text == prompt.text.strip() for prompt in mixed)
    octaves = [int(math.log2(len(prompt.text.encode()))) for prompt in mixed]
    assert all(octaves.count(octave) >= 9 for octave in (5, 6, 7, 8, 9))  # 32 to 1,023 bytes


def test_english_and_code_are_mixed_without_its_other_languages():
    mixed, english, code = (load_prompts(name).prompts for name in ("mixed", "english", "code"))
    assert (len(english), len(code)) == (52, 20)
    rest = [prompt for prompt in mixed if prompt not in (*english, *code)]
    assert {prompt.group for prompt in rest} == {"language"}
    assert all(prompt.text.isascii() for prompt in english)


def test_long_is_long_and_says_where_it_is_from():
    long = load_prompts("long")
    assert len(long.prompts) >= 16
    assert len({prompt.id for prompt in long.prompts}) == len(long.prompts)
    assert all(len(prompt.text) >= 32_000 for prompt in long.prompts)
    assert sum(len(prompt.text) for prompt in long.prompts) > 3_000_000
    by_id = {prompt.id: prompt.text for prompt in long.prompts}
    assert "class ArgumentParser" in by_id["long-argparse"]
    assert "class OrderedDict" in by_id["long-collections"]  # a package: its __init__
    assert f"Python {sys.version.split()[0]}" in long.note


def test_some_of_long_are_spread_over_all_of_it():
    everything = load_prompts("long").prompts
    some = load_prompts("long", 8).prompts
    places = [everything.index(prompt) for prompt in some]
    assert places[0] == 0
    distances = {after - before for before, after in pairwise(places)}
    assert distances <= {len(everything) // 8, len(everything) // 8 + 1}
    assert load_prompts("long", 10_000).prompts == everything


def test_long_without_library_sources_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(gainlens.prompts.texts.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(ValueError, match="has 0 of them: take --prompts mixed"):
        load_prompts("long")


def test_long_takes_modules_and_packages_and_no_shim(monkeypatch, tmp_path):
    """Since 3.12 datetime.py is a shim for _pydatetime.py."""
    monkeypatch.setattr(gainlens.prompts.texts.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    monkeypatch.setattr(gainlens.prompts.texts, "LONG_MINIMUM", 1)
    (tmp_path / "collections").mkdir()
    for name, length in (("collections/__init__", 32_000), ("datetime", 31_999), ("os", 40_000)):
        (tmp_path / f"{name}.py").write_text("x" * length)
    found = [(prompt.id, len(prompt.text)) for prompt in load_prompts("long").prompts]
    assert found == [("long-collections", 32_000), ("long-os", 40_000)]


def test_the_hash_is_of_ids_and_texts_and_nothing_else():
    pair = (Prompt("a", "ä"), Prompt("b", "c"))
    plain = PromptSet("x", False, pair)
    # sha256 of '[["a","ä"],["b","c"]]' in UTF-8, by coreutils
    assert plain.sha256 == "a3244d2a75b2c854281a616bf7073ccdf21587f6221c9248b074b0607336a352"
    assert PromptSet("y", True, pair, "note").sha256 == plain.sha256
    assert PromptSet("x", False, pair[::-1]).sha256 != plain.sha256
    assert PromptSet("x", False, (Prompt("a", "äb"), Prompt("", "c"))).sha256 != plain.sha256


def test_a_text_file_is_a_prompt_a_line(tmp_path):
    source = written(tmp_path, "\ufeffone\r\n\n  two \u2028 still two\n \t\nthree")
    found = load_prompts(source)
    assert [p.text for p in found.prompts] == ["one", "  two \u2028 still two", "three"]
    assert [p.id for p in found.prompts] == ["line-1", "line-3", "line-5"]
    assert (found.name, found.built_in, found.note) == (source, False, "")


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.JSONL"])
def test_jsonl_holds_objects_or_strings(tmp_path, name):
    lines = ['{"text": "one\\ntwo", "id": "x", "more": 1}', "", '"three \\ud83d\\ude00"']
    found = load_prompts(written(tmp_path, "\n".join(lines), name))
    assert found.prompts == (Prompt("x", "one\ntwo"), Prompt("line-3", "three \U0001f600"))


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ('{"txt": "a"}', 'line 2 has no "text" that is a string'),
        ('{"text": 3}', 'line 2 has no "text" that is a string'),
        ("[]", 'line 2 has no "text" that is a string'),
        ("null", 'line 2 has no "text" that is a string'),
        ("{'text': 1}", r"line 2 is not JSON \(Expecting property name"),
        ("[" * 100_000, "line 2 is not JSON"),
        ("9" * 5000, "line 2 is not JSON"),
        ('{"text": " "}', "line 2 .*empty"),
        ('{"text": "a\\u0000"}', "line 2 .*NUL"),
        ('{"text": "\\ud83d"}', "line 2 holds half of a surrogate pair"),
        ('{"text": "a", "id": "\\ud83d"}', "line 2 holds half of a surrogate pair"),
        ('{"text": "a", "id": []}', 'line 2 has an "id"'),
        ('{"text": "a", "id": "line-1"}', "two prompts with the id 'line-1'"),
    ],
)
@pytest.mark.fault(
    "a JSONL line that is no prompt, nested 100,000 deep, or half a surrogate pair",
    "refused: the line and what it lacks",
)
def test_a_bad_jsonl_line_is_named(tmp_path, line, match):
    with pytest.raises(ValueError, match=match):
        load_prompts(written(tmp_path, f'"good"\n{line}\n', "a.jsonl"))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "holds no prompt"),
        (b" \n\n\t\n", "holds no prompt"),
        (b"ab\ncd\xff\n", "not UTF-8: byte 0xff at offset 5, line 2; save it as UTF-8"),
        ("ab".encode("utf-16"), "not UTF-8: byte 0xff at offset 0, line 1"),
        ("ab".encode("utf-16-le"), "line 1 holds a NUL character"),
        (b"ok\na\0b\n", "line 2 holds a NUL character"),
    ],
)
@pytest.mark.fault(
    "a prompt file that is empty, UTF-16, not UTF-8, or holds NUL", "refused: byte and line"
)
def test_a_bad_file_is_refused_with_the_place(tmp_path, content, match):
    with pytest.raises(ValueError, match=match):
        load_prompts(written(tmp_path, content))


@pytest.mark.fault("a line without end", "refused: the most that a line may have")
def test_an_endless_line_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(gainlens.prompts.texts, "MAX_LINE_BYTES", 2**20)
    assert len(texts(written(tmp_path, b"short\n" + b"a" * (2**20 - 1) + b"\n"))) == 2
    with pytest.raises(ValueError, match="line 2 is longer than 1 MiB"):
        load_prompts(written(tmp_path, b"short\n" + b"a" * (2**20 + 1)))


@pytest.mark.parametrize("name", ["mixd", "no/such.txt", "no.jsonl"])
@pytest.mark.fault("no such prompt set or file", "refused: the sets that there are")
def test_an_unknown_name_is_answered_with_the_known_ones(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"'{name}'.*no such file.*mixed, english"):
        load_prompts(name)


@pytest.mark.fault("a directory or a .json for a prompt file", "refused: what to give")
def test_what_is_no_prompt_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is a directory"):
        load_prompts(str(tmp_path))
    with pytest.raises(ValueError, match=r"name it \.jsonl"):
        load_prompts(written(tmp_path, "[]", "a.json"))
    with pytest.raises(ValueError, match="cannot be read: File name too long"):
        load_prompts("x" * 5000)
    with pytest.raises(ValueError, match="cannot be read: Not a directory"):
        load_prompts(written(tmp_path, "a", "file") + "/below.txt")


def test_a_file_may_bear_the_name_of_a_built_in_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mixed").write_text("mine")
    assert texts("./mixed") == ["mine"]
    assert load_prompts("mixed").sha256 == MIXED_SHA256


JSONISH = st.lists(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: st.dictionaries(st.sampled_from(["text", "id", "x"]), inner, max_size=3),
    ).map(json.dumps),
    max_size=4,
).map(lambda lines: "\n".join(lines).encode())


def answer(source: str) -> PromptSet | str:
    """The prompts or the sentence; any other exception, subclasses of ValueError too, goes on."""
    try:
        return load_prompts(source)
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        return str(error)


@settings(deadline=None)  # several test processes share the cores
@given(content=st.binary(max_size=200) | JSONISH, suffix=st.sampled_from(["txt", "jsonl"]))
@example(content=b'{"text": "a", "id": true}', suffix="jsonl")
def test_any_bytes_are_prompts_or_a_one_line_value_error(tmp_path_factory, content, suffix):
    source = written(tmp_path_factory.mktemp("any"), content, f"a.{suffix}")
    found = answer(source)
    if isinstance(found, str):
        assert "\n" not in found
        return
    assert found.prompts
    assert len(found.sha256) == 64
    assert all(prompt.text.strip() and "\0" not in prompt.text for prompt in found.prompts)
    assert len({prompt.id for prompt in found.prompts}) == len(found.prompts)


@settings(deadline=None)
@given(
    lines=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\0")).filter(
            lambda line: line.strip() and not line.startswith("\ufeff")
        ),
        min_size=1,
    )
)
def test_text_and_jsonl_give_back_what_was_written(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("round")
    assert texts(written(folder, "\n".join(lines))) == lines
    encoded = "\n".join(json.dumps({"text": line}) for line in lines)
    assert texts(written(folder, encoded, "a.jsonl")) == lines
