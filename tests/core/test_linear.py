"""Solves and inner products, one per row."""

import pytest
import torch

from oneprior.core import Rows, conjugate_gradient, inner, norm, per_row


def test_conjugate_gradient_equals_a_dense_solve_and_does_not_couple_rows():
    rows = Rows(5, seed=1)
    root = rows.normal(6, 6, dtype=torch.float64)
    matrices = root @ root.mT + 0.1 * torch.eye(6, dtype=torch.float64)
    b = rows.normal(6, dtype=torch.float64)
    b[3] = 0

    def operator(v):
        return torch.einsum("nij,nj->ni", matrices[: len(v)], v)

    x = conjugate_gradient(operator, b, tolerance=1e-13)
    assert torch.allclose(x, torch.linalg.solve(matrices, b), rtol=1e-8, atol=1e-12)
    assert torch.equal(x[3], torch.zeros(6, dtype=torch.float64))
    assert torch.allclose(conjugate_gradient(operator, b[:1], tolerance=1e-13), x[:1], rtol=0, atol=1e-12)


def test_inner_products_of_complex_rows_are_real():
    a = torch.tensor([[1 + 2j, 3j]])
    assert inner(a, a).item() == 1 + 4 + 9
    assert norm(a).item() == pytest.approx(14**0.5)
    assert per_row(torch.tensor([1.0, 2.0]), torch.zeros(2, 3, 4)).shape == (2, 1, 1)
