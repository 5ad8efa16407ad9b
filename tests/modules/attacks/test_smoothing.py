"""Randomised smoothing against the closed form of a linear classifier and the exact binomial."""

import math

import pytest
import torch
from scipy.stats import beta, norm
from torch import Tensor, nn

from modules.attacks.smoothing import ABSTAINED, RandomisedSmoothing, lower_bound

SHAPE = (3, 4, 4)


class Linear(nn.Module):
    """Class 1 where `w.x + b > 0`, else 0; remembers the sizes of its batches."""

    def __init__(self, distance: float, image: Tensor) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        weight = torch.randn(image.numel(), generator=generator)
        self.weight = weight / weight.norm() * 3  # so that ||w|| has to be divided by
        self.bias = 3 * distance - image.flatten() @ self.weight
        self.sizes: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        score = images.flatten(1) @ self.weight + self.bias
        return torch.stack([-score, score], dim=1)


@pytest.fixture
def image() -> Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("distance", [0.1, -0.3, 0.45])
def test_radius_of_a_linear_classifier_approaches_its_margin(
    image: Tensor, distance: float
) -> None:
    network = Linear(distance, image)
    found = {
        n: RandomisedSmoothing(0.25, 50, n, batch=5000).certify(network, image, "a")
        for n in (200, 20_000)
    }
    few, many = found[200], found[20_000]
    assert many.prediction == int(distance > 0)
    assert few.radius < many.radius <= abs(distance)
    # what n copies can show at best: the bound of the expected number of votes
    share = norm.cdf(abs(distance) / 0.25)
    votes = round(20_000 * share)
    expected = 0.25 * norm.ppf(beta.ppf(0.001, votes, 20_000 - votes + 1))
    assert many.radius == pytest.approx(expected, abs=0.012)


def test_an_undecided_image_is_not_certified(image: Tensor) -> None:
    found = RandomisedSmoothing(0.25, 20, 400).certify(Linear(0.001, image), image, "a")
    assert found == (ABSTAINED, 0.0, True)


def test_all_votes_give_the_largest_radius_there_is(image: Tensor) -> None:
    found = RandomisedSmoothing(0.5, 5, 100, alpha=0.01).certify(Linear(50.0, image), image, "a")
    assert found.radius == pytest.approx(0.5 * norm.ppf(0.01 ** (1 / 100)))


@pytest.mark.parametrize(("votes", "number"), [(0, 7), (5, 7), (7, 7), (612, 1000), (1000, 1000)])
def test_bound_is_that_of_clopper_and_pearson(votes: int, number: int) -> None:
    bound = lower_bound(votes, number, 0.001)
    if votes == 0:
        assert bound == 0
        return
    # the p at which so many votes or more have the probability alpha
    tail = sum(
        math.comb(number, k) * bound**k * (1 - bound) ** (number - k)
        for k in range(votes, number + 1)
    )
    assert tail == pytest.approx(0.001, rel=1e-6)


def test_certificates_depend_on_seed_and_key_alone(image: Tensor) -> None:
    network = Linear(0.15, image)
    other = torch.rand(SHAPE, generator=torch.Generator().manual_seed(5))
    threat = RandomisedSmoothing(0.25, 10, 300, batch=64)
    state = torch.get_rng_state()
    both = threat.certify_all(network, torch.stack([other, image]), ["b", "a"])
    assert torch.equal(torch.get_rng_state(), state)
    assert both["prediction"].dtype == torch.int64
    alone = RandomisedSmoothing(0.25, 10, 300, batch=7).certify(network, image, "a")
    assert alone.radius == both["radius"][1]
    assert max(network.sizes) == 64
    assert network.sizes[-1] == 300 % 7  # no more copies than were asked for
    radii = {
        RandomisedSmoothing(0.25, 10, 300, seed=seed).certify(network, image, key).radius
        for seed, key in ((0, "a"), (1, "a"), (0, "b"))
    }
    assert len(radii) == 3


def test_noisy_copies_are_not_clamped(image: Tensor) -> None:
    seen: list[Tensor] = []

    class Look(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images)
            return torch.tensor([[1.0, 0.0]]).expand(len(images), 2)

    RandomisedSmoothing(0.5, 10, 500, batch=500).certify(Look(), image, "a")
    noise = (seen[1] - image).flatten()
    assert seen[1].min() < -0.5
    assert noise.mean() == pytest.approx(0, abs=0.02)
    assert noise.std() == pytest.approx(0.5, rel=0.02)


def test_settings_leave_out_what_changes_no_record() -> None:
    one, other = RandomisedSmoothing(0.25, batch=3, radii=[1, 0.5]), RandomisedSmoothing(0.25)
    assert one.settings == other.settings
    assert one.radii == [0.5, 1.0]
    assert one.settings != RandomisedSmoothing(0.25, seed=1).settings
    assert {"sigma", "n0", "n", "alpha", "seed", "attack"} <= one.settings.keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma": 0.0}, "sigma > 0"),
        ({"n0": 0}, "n0=0"),
        ({"alpha": 0.7}, r"alpha=0\.7"),
        ({"batch": 0}, "batch=0"),
        ({"n": 9}, "n=9 noisy copies certify nothing at alpha=0.001.* set n to 10 or more"),
        ({"radii": [-1.0]}, r"radii=\[-1\.0\]"),
        ({"radii": []}, r"radii=\[\]"),
    ],
)
def test_settings_that_cannot_be(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandomisedSmoothing(**({"sigma": 0.25} | arguments))  # type: ignore[arg-type]


def test_the_least_number_that_is_named_works() -> None:
    RandomisedSmoothing(0.25, n=10)
