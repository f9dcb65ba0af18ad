"""Prompts as one model's tokens: BOS, lengths, packing, refusals, on planted tokenizers."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from gainlens.prompts.encoding import encode
from gainlens.prompts.texts import Prompt, PromptSet, load_prompts

BOS, UNK, FIRST = 1, 0, 2


@dataclass
class Letters:
    """One token a character, so that every length is known; `<s>` in a text is the BOS token."""

    bos_token_id: int | None = BOS
    unk_token_id: int | None = UNK
    adds: int = 1
    known: str = "abcdefghijklmnopqrstuvwxyz \n"

    def __call__(self, text: str, *, verbose: bool) -> SimpleNamespace:
        assert not verbose  # else transformers warns of every long prompt
        letters = {c: FIRST + i for i, c in enumerate(self.known)} | {"\1": BOS}
        ids = [letters.get(c, UNK) for c in text.replace("<s>", "\1")]
        return SimpleNamespace(input_ids=[BOS] * self.adds + ids)


def user(*texts: str) -> PromptSet:
    return PromptSet("mine.txt", False, tuple(Prompt(f"p{i}", t) for i, t in enumerate(texts)))


def run(prompts: PromptSet, tokenizer=None, **changes):
    asked = {"context": 100, "tokens": None, "allow_extrapolation": False, "vocab_size": 64}
    return encode(prompts, tokenizer or Letters(), **(asked | changes))


def lengths(encoded) -> list[int]:
    return [len(ids) for ids in encoded.tokens]


@pytest.fixture(scope="module")
def real() -> PreTrainedTokenizerFast:
    """Byte-level BPE that prepends one `<s>`, as Llama's does."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    core.train_from_iterator((p.text for p in load_prompts("mixed").prompts), trainer)
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", model_max_length=64
    )


@pytest.mark.fault(
    "a BOS missing where the tokenizer adds one", "cannot be: the tokenizer's own encoding is taken"
)
def test_bos_stands_once_at_position_0_where_the_tokenizer_adds_it():
    encoded = run(user("abc", "de"))
    assert encoded.bos
    assert [ids.tolist() for ids in encoded.tokens] == [[BOS, 2, 3, 4], [BOS, 5, 6]]
    assert all(ids.dtype == np.int64 for ids in encoded.tokens)


@pytest.mark.parametrize("tokenizer", [Letters(bos_token_id=None, adds=0), Letters(adds=0)])
@pytest.mark.fault(
    "a tokenizer that adds no BOS", "caveat: none is invented, and the result says so"
)
def test_no_bos_is_invented_where_the_tokenizer_adds_none(tokenizer):
    """Qwen2 has no BOS token; GPT-2 has one and does not prepend it."""
    encoded = run(user("abc"), tokenizer)
    assert not encoded.bos
    assert encoded.tokens[0].tolist() == [2, 3, 4]


@pytest.mark.fault("a text that spells out the BOS that the tokenizer adds", "refused: the prompt")
def test_a_text_that_doubles_bos_is_refused():
    with pytest.raises(ValueError, match=r"prompt 'p0' spells out the BOS token.*remove it"):
        run(user("<s>abc"))


@pytest.mark.parametrize(
    ("adds", "texts", "bos", "note"),
    [
        (1, ["abc<s>abc", "abc"], True, "1 of 2 prompts hold the BOS token"),
        (0, ["abc<s>abc", "abc<s>"], False, "2 of 2 prompts hold the BOS token"),
        (0, ["<s>abc", "<s>ab"], True, "2 of 2 prompts begin with a BOS token"),
        (0, ["<s>abc", "ab"], False, "1 of 2 prompts begin with a BOS token"),
        (0, ["abc", "ab"], False, ""),
    ],
)
@pytest.mark.fault(
    "a BOS within a text (documents packed with it, chat turns)", "caveat: measured and noted"
)
def test_bos_is_told_by_its_place(adds, texts, bos, note):
    encoded = run(user(*texts), Letters(adds=adds))
    assert encoded.bos is bos
    assert note in encoded.note
    assert bool(note) == bool(encoded.note)
    if note.endswith("begin with a BOS token"):
        assert "hold" not in encoded.note


@dataclass
class Framed(Letters):
    """`[` and `<` in front of every text, as [gMASK] and <sop> of GLM; `>` at its end."""

    bos_token_id: int | None = None

    def __call__(self, text: str, *, verbose: bool) -> SimpleNamespace:
        ids = super().__call__(text, verbose=verbose).input_ids
        return SimpleNamespace(input_ids=[50, 51, *ids, 52])


@pytest.mark.fault(
    "a tokenizer that puts [gMASK] <sop> in front or EOS at the end",
    "caveat: classed with position 0, and noted",
)
def test_constant_tokens_around_every_text_are_noted():
    encoded = run(user("abc", "abcd"), Framed(adds=0))
    assert encoded.prefix == 2
    assert encoded.bos  # position 0 is the same token everywhere
    assert encoded.tokens[0].tolist() == [50, 51, 2, 3, 4, 52]
    assert "puts token 50 token 51 in front of every prompt" in encoded.note
    assert "ends 2 of 2 prompts with token 52" in encoded.note
    assert "hold" not in encoded.note
    assert "ends" not in run(user("abc", "abcd"), Framed(adds=0), tokens=4).note
    with pytest.raises(ValueError, match="has 3 token in all and at least 4"):
        run(user("abc", ""), Framed(adds=0))


@dataclass
class Chat(Letters):
    """`{` and `}` are special tokens, those of a chat template."""

    known: str = "abcdefghijklmnopqrstuvwxyz \n{}"

    @property
    def all_special_ids(self) -> list[int]:
        return [BOS, *(FIRST + self.known.index(mark) for mark in "{}")]


@pytest.mark.parametrize(
    ("adds", "texts", "prefix"),
    [
        (1, ["{user}abc", "{user}xyz"], 7),  # BOS and the template
        (0, ["{user}abc", "{user}xyz"], 6),  # Qwen's ChatML
        (0, ["<s>user abc", "<s>user xyz"], 6),  # BOS is the turn marker
        (1, ["{user}abc", "xyz"], 1),  # not in every prompt
        (1, ["the abc", "the xyz"], 1),  # shared text without a special token
        (0, ["the abc", "the xyz"], 1),
        (1, ["{user}abc"], 1),  # one prompt does not show it
        (1, ["{user}", "{user}abc"], 6),  # each prompt keeps one token
    ],
)
@pytest.mark.fault("a chat template around every prompt", "caveat: classed with position 0, noted")
def test_what_begins_every_prompt_alike_is_classed_with_position_0(adds, texts, prefix):
    encoded = run(user(*texts), Chat(adds=adds))
    assert encoded.prefix == prefix
    assert ("a chat template puts" in encoded.note) == (prefix > 1)
    assert f"{prefix} tokens are classed with position 0" in encoded.note or prefix == 1


@pytest.mark.fault("a tokenizer that prepends BOS twice", "refused: remove one")
def test_a_tokenizer_that_doubles_bos_is_refused():
    with pytest.raises(ValueError, match="prepends BOS twice"):
        run(user("abc"), Letters(adds=2))


@pytest.mark.fault("a token id beyond the embedding", "refused: the id and the rows")
def test_a_token_beyond_the_embedding_is_refused():
    assert lengths(run(user("ab"), vocab_size=4)) == [3]  # b is id 3, the last row
    with pytest.raises(ValueError, match=r"token id 3, .* has 3 rows.*do not belong together"):
        run(user("ab"), vocab_size=3)


@pytest.mark.fault(
    "a built-in prompt beyond the model's context", "caveat: cut, and the result counts how many"
)
def test_a_built_in_prompt_is_cut_to_the_context_and_counted():
    prompts = replace(user("a" * 9, "b" * 10), built_in=True)
    encoded = run(prompts, context=10)
    assert lengths(encoded) == [10, 10]
    assert encoded.cut == 1
    assert encoded.tokens[1].tolist() == [BOS] + [3] * 9
    assert lengths(run(prompts, context=None)) == [10, 11]


@pytest.mark.fault(
    "a prompt beyond the model's context", "refused: --tokens or --allow-extrapolation"
)
def test_a_users_long_prompt_is_refused_unless_a_flag_allows_it():
    prompts = user("a" * 9, "b" * 10)
    sentence = r"'p1' has 11 tokens .* for 10: .* --tokens 10, .* --allow-extrapolation"
    with pytest.raises(ValueError, match=sentence):
        run(prompts, context=10)
    assert lengths(run(prompts, context=10, allow_extrapolation=True)) == [10, 11]
    assert lengths(run(prompts, context=10, tokens=10)) == [10, 10]
    assert lengths(run(prompts, context=11)) == [10, 11]


@pytest.mark.fault(
    "--tokens beyond the model's context", "refused: the largest, or --allow-extrapolation"
)
def test_tokens_beyond_the_context_need_leave():
    prompts = user("a" * 50)
    with pytest.raises(ValueError, match=r"--tokens 20 is beyond the 10 .*--allow-extrapolation"):
        run(prompts, context=10, tokens=20)
    assert lengths(run(prompts, context=10, tokens=20, allow_extrapolation=True)) == [20]
    with pytest.raises(ValueError, match="--tokens 1 is too short"):
        run(prompts, tokens=1)


def test_packing_joins_followers_by_a_blank_line_and_repeats_nothing():
    encoded = run(user("aaa", "bbb", "c" * 20, "ddd"), tokens=8)
    letters = "".join(Letters().known[i - FIRST] for i in encoded.tokens[0][1:])
    assert letters == "aaa\n\nbb"
    assert encoded.ids == ("p0..p1", "p2")
    assert encoded.tokens[1].tolist() == [BOS] + [4] * 7
    assert encoded.cut == 2
    assert encoded.left_out == ("p3: 4 tokens in all, fewer than the 8 asked for",)


def test_packing_goes_on_where_the_joined_text_has_fewer_tokens_than_its_parts():
    """If white space has no tokens, n one-letter texts have 2n alone and n + 1 joined."""

    class NoSpace(Letters):
        def __call__(self, text, *, verbose):
            return super().__call__("".join(text.split()), verbose=verbose)

    encoded = run(user(*"abcdefghi"), NoSpace(), tokens=8)
    assert lengths(encoded) == [8]
    assert encoded.ids == ("p0..p6",)
    assert encoded.cut == 0
    assert encoded.left_out == ("p7..p8: 3 tokens in all, fewer than the 8 asked for",)


@settings(deadline=None)  # several test processes share the cores
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    tokens=st.integers(2, 60),
    adds=st.integers(0, 1),
)
@example(sizes=[1, 1, 1], tokens=7, adds=0)  # 6 letters: only the blank lines reach 7
def test_tokens_is_exact_and_every_text_is_used_at_most_once(sizes, tokens, adds):
    prompts = user(*("a" * (size + 1) for size in sizes))
    tokenizer = Letters(adds=adds)
    alone = adds + sum(size + 1 for size in sizes) + 2 * (len(sizes) - 1)
    if alone < tokens:
        with pytest.raises(ValueError, match="--prompts long"):
            run(prompts, tokenizer, tokens=tokens)
        return
    encoded = run(prompts, tokenizer, tokens=tokens)
    assert set(lengths(encoded)) == {tokens}
    named = [end for name in (*encoded.ids, *encoded.left_out) for end in ends(name)]
    assert named == list(range(len(sizes)))


def ends(name: str) -> range:
    """Indices of the prompts that a packed name covers."""
    first, _, last = name.split(":")[0].partition("..")
    return range(int(first[1:]), int((last or first)[1:]) + 1)


@pytest.mark.parametrize(
    ("text", "fault"), [("ÄÖÜ", "nothing but unknown tokens"), ("", "has 1 token in all")]
)
@pytest.mark.fault(
    "a prompt of one token, or of unknown tokens alone",
    "refused in a file; left out of a built-in set, and listed",
)
def test_what_cannot_be_measured_is_refused_in_a_file_and_left_out_of_a_built_in_set(text, fault):
    prompts = user("abc", text)
    with pytest.raises(ValueError, match=rf"prompt 'p1' of 'mine.txt' .*{fault}"):
        run(prompts)
    encoded = run(replace(prompts, built_in=True))
    assert encoded.ids == ("p0",)
    assert encoded.left_out[0].startswith("p1: ")
    assert fault in encoded.left_out[0]
    with pytest.raises(ValueError, match=rf"no prompt of 'mine.txt' can be used.*{fault}"):
        run(replace(user(text), built_in=True))


def test_a_text_with_some_unknown_tokens_is_kept():
    assert run(user("aÄ")).tokens[0].tolist() == [BOS, 2, UNK]


def test_where_no_prompt_reaches_the_length_the_error_says_which_would():
    with pytest.raises(ValueError, match=r"reaches --tokens 50 .*take --prompts long"):
        run(user("abc"), tokens=50)


def test_the_record_carries_source_hash_and_note():
    prompts = replace(user("abc"), note="of this Python")
    encoded = run(prompts)
    assert (encoded.source, encoded.sha256) == ("mine.txt", prompts.sha256)
    assert encoded.note == "of this Python"


def test_a_real_tokenizer_encodes_every_mixed_prompt_and_back(real):
    mixed = load_prompts("mixed")
    encoded = run(mixed, real, context=None, vocab_size=len(real))
    assert encoded.bos
    assert not encoded.left_out
    assert encoded.cut == 0
    for prompt, ids in zip(mixed.prompts, encoded.tokens, strict=True):
        assert np.count_nonzero(ids == real.bos_token_id) == 1
        assert real.decode(ids[1:]) == prompt.text


def test_a_real_tokenizer_packs_to_the_token(real):
    encoded = run(load_prompts("mixed"), real, context=512, tokens=300, vocab_size=len(real))
    assert set(lengths(encoded)) == {300}
    assert len(encoded.tokens) >= 16
    starts = [ids[0] == real.bos_token_id for ids in encoded.tokens]
    assert all(starts)
    assert all(np.count_nonzero(ids == real.bos_token_id) == 1 for ids in encoded.tokens)


def test_a_real_text_that_spells_bos_is_refused(real):
    with pytest.raises(ValueError, match="so there are two"):
        run(user("<s>once more"), real, vocab_size=len(real))


@pytest.mark.slow
def test_long_packs_to_a_context_of_131072(real):
    size = 131_072
    encoded = run(load_prompts("long"), real, context=size, tokens=size, vocab_size=len(real))
    assert len(encoded.tokens) >= 8
    assert set(lengths(encoded)) == {size}
