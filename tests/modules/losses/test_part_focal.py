import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from modules.losses.part_focal import PIXELS_PER_CHUNK, PartFocalLoss, mixture_targets


def dense_loss(
    features: Tensor, weight: Tensor, labels: Tensor, image_weight: Tensor, gamma: float, s: float
) -> Tensor:
    """The formulation of the paper's code: a dense smoothed one-hot map, resized bilinearly."""
    classes = weight.shape[0]
    target = F.one_hot(labels, classes).permute(0, 3, 1, 2).to(features)
    target = target * (1 - s) + s / classes
    target = F.interpolate(target, size=features.shape[-2:], mode="bilinear", align_corners=False)
    logits = F.conv2d(features, weight[..., None, None])
    entropy = -(target * logits.log_softmax(1)).sum(1)
    focal = (1 - torch.exp(-entropy)) ** gamma * entropy
    return (focal * image_weight[:, None, None]).mean()


@pytest.mark.parametrize("size", [8, 4, 2])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_equals_the_dense_formulation(size: int, gamma: float) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 5, size, size, generator=generator, dtype=torch.double)
    weight = torch.randn(11, 5, generator=generator, dtype=torch.double)
    labels = torch.randint(0, 11, (3, 8, 8), generator=generator)
    image_weight = torch.tensor([1.0, 0.0, 0.5])
    inputs = [features.requires_grad_(), weight.requires_grad_()]
    expected = dense_loss(features, weight, labels, image_weight, gamma, 0.1)
    expected_grads = torch.autograd.grad(expected, inputs)
    loss = PartFocalLoss(gamma, 0.1)(
        features, weight, mixture_targets(labels, (size, size)), image_weight
    )
    torch.testing.assert_close(loss, expected)
    for grad, expected_grad in zip(torch.autograd.grad(loss, inputs), expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad)


def test_gradcheck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PIXELS_PER_CHUNK, "cpu", 3)  # several chunks
    torch.manual_seed(0)
    features = torch.randn(2, 3, 2, 2, dtype=torch.double, requires_grad=True)
    weight = torch.randn(4, 3, dtype=torch.double, requires_grad=True)
    targets = mixture_targets(torch.randint(0, 4, (2, 4, 4)), (2, 2))
    image_weight = torch.tensor([1.0, 0.3])
    assert torch.autograd.gradcheck(
        lambda f, w: PartFocalLoss()(f, w, targets, image_weight), (features, weight)
    )


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_equals_plain(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PIXELS_PER_CHUNK, "cpu", 48)  # chunks of three images and of two
    torch.manual_seed(0)
    features = torch.randn(5, 8, 4, 4, dtype=dtype, requires_grad=True)
    weight = torch.randn(20, 8, dtype=dtype, requires_grad=True)
    targets = mixture_targets(torch.randint(0, 20, (5, 8, 8)), (4, 4))
    found = []
    for compiled in (False, True):
        loss = PartFocalLoss(compiled=compiled)(features, weight, targets, torch.ones(5))
        found.append([loss, *torch.autograd.grad(loss, [features, weight])])
    torch.testing.assert_close(found[1], found[0])


def test_image_without_parts_gets_no_gradient() -> None:
    features = torch.randn(2, 3, 2, 2, requires_grad=True)
    targets = mixture_targets(torch.zeros(2, 2, 2, dtype=torch.long), (2, 2))
    PartFocalLoss()(features, torch.randn(4, 3), targets, torch.tensor([0.0, 1.0])).backward()
    assert features.grad is not None
    assert not features.grad[0].any()
    assert features.grad[1].any()


def test_no_image_with_parts_is_zero() -> None:
    features = torch.randn(2, 3, 2, 2, requires_grad=True)
    targets = torch.zeros(2, 2, 2, 1, dtype=torch.long)
    loss = PartFocalLoss()(features, torch.randn(4, 3), targets, torch.zeros(2))
    loss.backward()
    assert loss == 0


def test_bfloat16_features_accumulate_in_float32() -> None:
    torch.manual_seed(0)
    features, weight = torch.randn(2, 8, 4, 4), torch.randn(20, 8)
    targets = mixture_targets(torch.randint(0, 20, (2, 4, 4)), (4, 4))
    exact = PartFocalLoss()(
        features.bfloat16().float(), weight.bfloat16().float(), targets, torch.ones(2)
    )
    low = PartFocalLoss()(features.bfloat16(), weight.bfloat16(), targets, torch.ones(2))
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, exact, rtol=2e-2, atol=0)


@pytest.mark.parametrize("weight_type", [torch.float32, torch.float16])
def test_float16_gradients_survive_until_they_are_scaled(weight_type: torch.dtype) -> None:
    """2^16 is where a gradient scaler starts."""
    torch.manual_seed(0)
    features, weight = torch.randn(8, 16, 28, 28).half(), (0.05 * torch.randn(500, 16)).half()
    targets = mixture_targets(torch.randint(0, 500, (8, 28, 28)), (28, 28))
    found = []
    for types, scale in (((torch.float32,) * 2, 1.0), ((torch.float16, weight_type), 2.0**16)):
        inputs = zip((features, weight), types, strict=True)
        given = [x.to(dtype).requires_grad_() for x, dtype in inputs]
        with torch.autocast("cpu", torch.float16, enabled=scale > 1):
            loss = PartFocalLoss()(*given, targets, torch.ones(8))
        gradients = torch.autograd.grad(loss * scale, given)
        assert [x.dtype for x in gradients] == list(types)
        found.append([x.float() / scale for x in gradients])
    for exact, low in zip(*found, strict=True):
        assert (low - exact).norm() < 0.01 * exact.norm()
        assert (low == 0).float().mean() < 0.01


def test_odd_reduction_is_refused() -> None:
    with pytest.raises(ValueError, match="9x9 do not reduce to 3x3"):
        mixture_targets(torch.zeros(1, 9, 9, dtype=torch.long), (3, 3))
