"""Numbers in words: with their doubt, and `unknown` where there is none."""

from math import log, nan

import pytest

from gainlens.claims.wording import component_label, nats, plain, ratio, signed, yes_no
from gainlens.records.interval import Interval


def interval(estimate: float, low: float, high: float, status: str = "ok") -> Interval:
    return Interval(estimate, low, high, 20, 0.95, "planted", status)


def test_an_interval_as_a_gain():
    assert ratio(interval(log(1.2), log(1.1), log(1.3))) == "1.200 [1.100, 1.300]"
    assert ratio(interval(log(1.2), nan, nan, "too few")) == "1.200 (too few)"
    assert ratio(interval(nan, nan, nan, "no tokens")) == "unknown: no tokens"


def test_an_interval_in_nats():
    assert nats(interval(-0.1, -0.2, 0.05)) == "-0.1000 [-0.2000, +0.0500]"
    assert nats(interval(0.1, nan, nan, "too few")) == "+0.1000 (too few)"
    assert nats(interval(nan, nan, nan, "none")) == "unknown (none)"


def test_plain_numbers():
    assert signed(0.5, 2) == "+0.50"
    assert signed(None) == signed(nan) == plain(None) == plain(nan) == "unknown"
    assert plain(1234.5, ",.1f") == "1,234.5"
    assert [yes_no(value) for value in (True, False, None)] == ["yes", "no", "unknown"]


@pytest.mark.parametrize(
    ("site", "label"),
    [
        ("blocks.-1.hook_mlp_out", "last, MLP"),
        ("blocks.-3.hook_attn_out", "3rd last, attention"),
        ("blocks.-4.attn.hook_z[2]", "4th last, head 2"),
    ],
)
def test_a_component_in_words(site, label):
    assert component_label(site) == label
