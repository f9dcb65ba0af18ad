"""Closed formulas against a large random matrix and the paper's own numbers."""

import numpy as np
import pytest

from gainlens.core.formulas import prompts_needed, random_edge, theta_bound


def test_a_large_gaussian_matrix_lies_at_its_edge():
    matrix = np.random.default_rng(0).normal(size=(2_000, 500))
    edge = random_edge(float(np.linalg.norm(matrix)), *matrix.shape)
    assert np.linalg.norm(matrix, 2) == pytest.approx(edge, rel=0.01)


def test_theta_bound_of_the_papers_context_lengths():
    assert theta_bound(4_096) == pytest.approx(3.2e4, rel=0.01)
    assert theta_bound(131_072) == pytest.approx(9.1e6, rel=0.01)


def test_so_many_prompts_exclude_the_value_as_often_as_asked():
    """Simulated: the interval mean +- 1.96 standard errors over the number of prompts."""
    number = prompts_needed(spread=0.04, distance=0.02)
    draws = np.random.default_rng(1).normal(0.02, 0.04, size=(20_000, number))
    low = draws.mean(axis=1) - 1.96 * 0.04 / np.sqrt(number)
    assert (low > 0).mean() == pytest.approx(0.8, abs=0.02)
    assert prompts_needed(0.08, 0.04) == number
    assert prompts_needed(0.04, 0.02, power=0.9) > number
    assert prompts_needed(0.04, 0.02, confidence=0.99) > number
