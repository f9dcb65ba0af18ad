"""Large values are made when asked for, and no more are held than fit."""

from dataclasses import dataclass

import numpy as np
import pytest

from gainlens.results.lazy import Held, nbytes


@dataclass(frozen=True)
class Record:
    values: np.ndarray
    name: str = "not an array"


def held(budget, made, keys="abc"):
    def maker(key):
        def make():
            made.append(key)
            return Record(np.zeros(100))

        return make

    return Held({key: maker(key) for key in keys}, budget)


def test_nothing_is_made_before_it_is_asked_for_and_what_fits_is_made_once():
    made = []
    several = held(10_000, made)
    assert (len(several), list(several), made) == (3, ["a", "b", "c"], [])
    first = several["a"]
    assert [several[key] is first for key in "abca"] == [True, False, False, True]
    assert made == ["a", "b", "c"]


def test_what_was_asked_for_longest_ago_goes_first():
    made = []
    several = held(1600, made)  # two of them
    for key in "abacab":
        several[key]
    assert made == ["a", "b", "c", "b"]


def test_the_last_is_held_whatever_its_size_and_alone():
    made = []
    several = held(0, made)
    assert several["a"] is several["a"]
    several["b"]
    several["a"]
    assert made == ["a", "b", "a"]


def test_room_is_made_before_the_next_is_made():
    there = []
    sizes = {"small": 10, "large": 150, "next": 150}

    def maker(key):
        def make():
            there.append(sorted(several._held))
            return Record(np.zeros(sizes[key]))

        return make

    several = Held({key: maker(key) for key in sizes}, 1600)
    for key in ("small", "large", "next"):
        several[key]
    assert there == [[], ["small"], []]  # large and another as large are 2,400 bytes


def test_an_unknown_key_is_a_key_error_and_loses_nothing():
    made = []
    several = held(0, made)
    several["a"]
    with pytest.raises(KeyError):
        several["z"]
    several["a"]
    assert made == ["a"]


def test_bytes_are_those_of_the_arrays():
    assert nbytes(Record(np.zeros(7, np.float32))) == 28
