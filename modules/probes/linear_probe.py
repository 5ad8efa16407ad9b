"""Logistic regression on the features of few images."""

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.files.errors import UserError

MAX_ITERATIONS = 2000
TOLERANCE = 1e-7  # of the gradient, as a share of that at the start


def fit_linear_probe(features: Tensor, labels: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression with an L2 penalty on the weights, not on the bias.

    Minimises `|W|^2 / 2 + strength * sum of the cross entropies`, the objective of scikit-learn's
    LogisticRegression with `C = strength`. The best weights lie in the span of the features, so
    with fewer images than channels the problem is solved there, which changes nothing but time.

    Args:
        features: `(N, C)`, float64.
        labels: numbers of the classes, int64 `(N,)`, each from 0 on at least once.
        strength: weight of the data beside the penalty, above 0.

    Returns:
        Weights `(classes, C)` and bias `(classes,)`, float64.

    Raises:
        UserError: if the minimum was not found.
    """
    images, channels = features.shape
    basis = None
    inside = features
    if images < channels:
        basis, factor = torch.linalg.qr(features.T)
        inside = factor.T
    classes = int(labels.max()) + 1
    weight = features.new_zeros(classes, inside.shape[1], requires_grad=True)
    bias = features.new_zeros(classes, requires_grad=True)

    def objective() -> Tensor:
        losses = F.cross_entropy(inside @ weight.T + bias, labels, reduction="sum")
        return weight.square().sum() / 2 + strength * losses

    def slope() -> float:
        gradients = torch.autograd.grad(objective(), (weight, bias))
        return max(float(gradient.abs().max()) for gradient in gradients)

    bound = TOLERANCE * max(slope(), 1.0)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=MAX_ITERATIONS,
        max_eval=2 * MAX_ITERATIONS,
        tolerance_grad=bound / 10,
        tolerance_change=0,
        history_size=50,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    if not slope() <= bound:
        raise UserError(
            f"the linear probe found no minimum in {MAX_ITERATIONS} steps: normalise the features, "
            "or give a smaller --probe_strength"
        )
    found = weight.detach()
    return (found if basis is None else found @ basis.T), bias.detach()


def linear_probe(support: Tensor, queries: Tensor, strength: float = 1.0) -> Tensor:
    """Classifies features by logistic regression on the labelled ones.

    Args:
        support: features of the labelled images, `(way, shots, C)`, float64.
        queries: features to classify, `(N, C)`, float64.
        strength: see `fit_linear_probe`.

    Returns:
        Numbers of the classes, int64 `(N,)`.

    Raises:
        UserError: if the regression did not converge.
    """
    way, shots, _ = support.shape
    labels = torch.arange(way).repeat_interleave(shots)
    weight, bias = fit_linear_probe(support.flatten(0, 1), labels, strength)
    return (queries @ weight.T + bias).argmax(1)
