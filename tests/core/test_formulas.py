"""Closed formulas against a large random matrix and the paper's own numbers."""

import numpy as np
import pytest

from gainlens.core.formulas import random_edge, theta_bound


def test_a_large_gaussian_matrix_lies_at_its_edge():
    matrix = np.random.default_rng(0).normal(size=(2_000, 500))
    edge = random_edge(float(np.linalg.norm(matrix)), *matrix.shape)
    assert np.linalg.norm(matrix, 2) == pytest.approx(edge, rel=0.01)


def test_theta_bound_of_the_papers_context_lengths():
    assert theta_bound(4_096) == pytest.approx(3.2e4, rel=0.01)
    assert theta_bound(131_072) == pytest.approx(9.1e6, rel=0.01)
