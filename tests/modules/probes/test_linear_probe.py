"""The linear probe against SciPy's solver in the whole space, with another formula and gradient."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp, softmax

from datamodules.files.errors import UserError
from modules.probes import linear_probe as probe
from modules.probes.linear_probe import fit_linear_probe, linear_probe


def objective(
    flat: np.ndarray, x: np.ndarray, y: np.ndarray, strength: float
) -> tuple[float, np.ndarray]:
    """Value and gradient, weights and bias in one vector."""
    classes = len(flat) // (x.shape[1] + 1)
    table = flat.reshape(classes, -1)
    logits = x @ table[:, :-1].T + table[:, -1]
    value = (table[:, :-1] ** 2).sum() / 2
    value += strength * (logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]).sum()
    residual = strength * (softmax(logits, axis=1) - np.eye(classes)[y])
    slope = np.column_stack([table[:, :-1] + residual.T @ x, residual.sum(0)])
    return float(value), slope.ravel()


def data(images: int, channels: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(images + channels)
    y = np.arange(images) % 3
    return scale * (rng.normal(size=(images, channels)) + y[:, None]), y


@pytest.mark.parametrize(
    ("images", "channels", "scale", "strength"),
    [(6, 40, 1.0, 1.0), (30, 4, 1.0, 1.0), (12, 12, 1.0, 0.01), (9, 20, 5.0, 1.0)],
)
def test_the_minimum_is_scipys(images: int, channels: int, scale: float, strength: float) -> None:
    x, y = data(images, channels, scale)
    start = np.zeros(3 * (channels + 1))
    args = (x, y, strength)
    options = {"gtol": 1e-9, "maxiter": 20000}
    exact = minimize(objective, start, args, method="BFGS", jac=True, options=options)
    weight, bias = fit_linear_probe(torch.from_numpy(x), torch.from_numpy(y), strength)
    assert (weight.shape, bias.shape) == ((3, channels), (3,))
    found = np.column_stack([weight.numpy(), bias.numpy()]).ravel()
    assert objective(found, *args)[0] == pytest.approx(exact.fun, rel=1e-9)
    expected = exact.x.reshape(3, -1)
    np.testing.assert_allclose(weight.numpy(), expected[:, :-1], atol=2e-5)
    # the same number on every bias changes nothing
    expected_bias = expected[:, -1] - expected[:, -1].mean()
    np.testing.assert_allclose(bias.numpy() - bias.numpy().mean(), expected_bias, atol=2e-4)


def test_classes_are_those_of_the_fit() -> None:
    x, y = data(12, 30, 1.0)
    support = np.stack([x[y == label] for label in range(3)])
    queries, _ = data(21, 30, 1.0)
    weight, bias = fit_linear_probe(
        torch.from_numpy(support.reshape(12, 30)), torch.arange(3).repeat_interleave(4), 1.0
    )
    expected = log_softmax(queries @ weight.numpy().T + bias.numpy(), axis=1).argmax(1)
    found = linear_probe(torch.from_numpy(support), torch.from_numpy(queries))
    assert found.tolist() == expected.tolist()
    assert len(set(found.tolist())) == 3


def test_no_minimum_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "MAX_ITERATIONS", 1)
    x, y = data(9, 20, 5.0)
    with pytest.raises(UserError, match="found no minimum in 1 steps: normalise the features"):
        fit_linear_probe(torch.from_numpy(x), torch.from_numpy(y), 1.0)
