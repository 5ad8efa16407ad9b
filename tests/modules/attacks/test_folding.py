import pytest
import torch
from torch import nn

from modules.attacks.folding import foldable, folded
from modules.networks.structures import build_network

SMALL = {"channels": [8, 8, 16, 16], "stem_width": 8}


def network(structure: str = "bypass", architecture: str = "resnet18") -> nn.Module:
    """An untrained network in eval mode whose batch norms do something."""
    torch.manual_seed(0)
    parts = torch.ones(4, 6, dtype=torch.bool)
    model_args = SMALL if architecture == "resnet18" else {}
    made = build_network(structure, architecture, parts, model_args=model_args).eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_var, module.weight.data, module.bias.data):
                tensor.uniform_(0.5, 1.5)
            module.running_mean.normal_()
    return made


@pytest.mark.parametrize("structure", ["bypass", "downsampled", "bounding_box", "judgment"])
def test_logits_and_input_gradients_are_the_same(structure: str) -> None:
    model = network(structure)
    assert len(foldable(model)) >= 20  # all of the backbone
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    plain = model.surrogate(images)
    (expected,) = torch.autograd.grad(plain.logsumexp(1).sum(), images)
    with folded(model):
        logits = model.surrogate(images)
        (gradient,) = torch.autograd.grad(logits.logsumexp(1).sum(), images)
    torch.testing.assert_close(logits, plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(model.surrogate(images), plain, rtol=0, atol=0)


def test_follows_the_weights() -> None:
    model, images = network(), torch.rand(1, 3, 32, 32)
    with folded(model):
        before = model.surrogate(images)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    with folded(model):
        after = model.surrogate(images)
    torch.testing.assert_close(after, model.surrogate(images), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(after, before)


def test_batch_statistics_are_not_folded() -> None:
    model, images = network().train(), torch.rand(4, 3, 32, 32)
    with folded(model):
        torch.testing.assert_close(model.surrogate(images), model.surrogate(images))
        assert all("forward" not in vars(module) for module in model.modules())


def test_an_error_leaves_the_network_as_it_was() -> None:
    model = network()
    with pytest.raises(ZeroDivisionError), folded(model):
        raise ZeroDivisionError
    assert all("forward" not in vars(module) for module in model.modules())


def test_an_output_that_goes_elsewhere_too_is_left_alone() -> None:
    class Shortcut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def surrogate(self, images: torch.Tensor) -> torch.Tensor:
            features = self.convolution(images)
            return features + self.norm(features)

    assert foldable(Shortcut()) == []
    assert foldable(network(architecture="convnext_atto")) == []
