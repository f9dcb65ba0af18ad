"""Shortened names: they fit, keep both ends, and stay apart."""

from hypothesis import given
from hypothesis import strategies as st

from gainlens.core.names import shortened, shortened_apart

TWINS = [
    f"context{context}-theta{theta}" for context in ("512", "4096") for theta in ("10k", "500k")
]


def test_a_shortened_name_loses_its_owner_first_and_keeps_both_ends():
    assert shortened("meta-llama/Llama-2-7b-hf", 30) == "meta-llama/Llama-2-7b-hf"
    assert shortened("meta-llama/Llama-2-7b-hf", 20) == "Llama-2-7b-hf"
    cut = shortened("a" * 40 + "-v0.3", 20)
    assert len(cut) == 20
    assert cut.endswith("-v0.3")
    assert "…" in cut


def test_the_twins_stay_apart_at_every_width():
    for width in range(10, 25):
        short = shortened_apart(TWINS, width)
        assert len(set(short)) == 4, (width, short)
        assert max(map(len, short)) <= width
    assert shortened_apart(TWINS, 21) == TWINS


@given(st.lists(st.text("abc-/", min_size=1, max_size=30), min_size=1, max_size=9, unique=True))
def test_distinct_names_stay_distinct_in_twelve_characters(names):
    short = shortened_apart(names, 12)
    assert max(map(len, short)) <= 12
    assert len(set(short)) == len(set(names))
