"""Randomised smoothing: a certified lower bound of l_2 robustness, of the smoothed classifier."""

import hashlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from scipy.stats import binomtest, norm
from torch import Tensor, nn

from datamodules.files.errors import UserError
from modules.attacks.pixel_units import PixelDistance
from modules.attacks.threats import Threat

ABSTAINED = -1  # prediction of an image that is not certified
RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)


class Certificate(NamedTuple):
    """What is certified of one image.

    Attributes:
        prediction: class of the smoothed classifier, `ABSTAINED` where it is not certain.
        radius: within this l_2 distance, in [0, 1] pixel units, that class cannot change.
        abstained: whether nothing is certified.
    """

    prediction: int
    radius: float
    abstained: bool


class RandomisedSmoothing(Threat):
    """CERTIFY of Cohen, Rosenfeld and Kolter 2019, one image after the other.

    It is no attack. The smoothed classifier answers with the class that the network gives most
    often under Gaussian noise. Its class is guessed from `n0` noisy copies; `n` others bound that
    class's probability from below (Clopper and Pearson, one-sided, level `alpha`), and
    `sigma * Phi^-1(bound)` is the radius. Where the bound is 1/2 or less it abstains. So each
    radius is a lower bound that is wrong with probability `alpha` at most. It says nothing of the
    network without noise, and nothing of other norms. As in the formula, noisy copies are not
    clamped to [0, 1].

    The noise of an image depends on `seed` and its key alone, copy by copy: neither `batch`, nor
    the chunks, nor the processes have an influence on it. A GPU draws other noise than a CPU.

    Args:
        sigma: standard deviation of the noise, in [0, 1] pixel units.
        n0: noisy copies that choose the class.
        n: noisy copies that bound its probability.
        alpha: probability that the radius of an image is too large.
        batch: noisy copies in one forward pass.
        seed: seed of the noise.
        radii: at which the summary gives the certified accuracy; the records hold each radius.

    Raises:
        UserError: if a setting is out of range, or `n` is too small to certify anything.
    """

    def __init__(
        self,
        sigma: PixelDistance,
        n0: int = 100,
        n: int = 100_000,
        alpha: float = 0.001,
        batch: int = 100,
        seed: int = 0,
        radii: Sequence[float] = RADII,
    ) -> None:
        super().__init__(None, PixelDistance(0))
        self.sigma = float(PixelDistance(sigma))
        if not self.sigma or min(n0, n, batch) < 1 or not 0 < alpha < 0.5:
            raise UserError(
                f"RandomisedSmoothing needs sigma > 0, n0, n and batch >= 1 and alpha in (0, 0.5), "
                f"got sigma={self.sigma}, {n0=}, {n=}, {batch=}, {alpha=}"
            )
        if lower_bound(n, n, alpha) <= 0.5:
            least = math.floor(math.log2(1 / alpha)) + 1
            raise UserError(
                f"n={n} noisy copies certify nothing at alpha={alpha}, even if all of them agree: "
                f"set n to {least} or more"
            )
        wrong = [radius for radius in radii if not 0 <= radius < math.inf]
        if wrong or not radii:
            raise UserError(f"radii={list(radii)} must be l2 distances, 0 or more")
        self.n0 = n0
        self.n = n
        self.alpha = alpha
        self.batch = batch
        self.seed = seed
        self.radii = sorted(set(map(float, radii)))

    @property
    def settings(self) -> dict[str, Any]:
        """What the records depend on: neither the size of a batch nor the radii of the table."""
        return {n: v for n, v in super().settings.items() if n not in ("batch", "radii")}

    def perturb(self, network: nn.Module, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """Returns the images: nothing is attacked."""
        return images

    def certify_all(
        self, network: nn.Module, images: Tensor, keys: Sequence[str]
    ) -> dict[str, Tensor]:
        """Certificates of a batch, each as `certify` gives it.

        Args:
            network: classifier of pixels in [0, 1], in eval mode.
            images: `(B, 3, H, W)` in [0, 1].
            keys: their keys.

        Returns:
            `prediction (B,)` int64, `radius (B,)` float64 and `abstained (B,)` bool, on the CPU.
        """
        found = [self.certify(network, *pair) for pair in zip(images, keys, strict=True)]
        return {
            "prediction": torch.tensor([one.prediction for one in found], dtype=torch.int64),
            "radius": torch.tensor([one.radius for one in found], dtype=torch.float64),
            "abstained": torch.tensor([one.abstained for one in found], dtype=torch.bool),
        }

    @torch.no_grad()
    def certify(self, network: nn.Module, image: Tensor, key: str) -> Certificate:
        """Class and radius of one image `(3, H, W)` in [0, 1], known by its key."""
        digest = hashlib.sha256(f"{self.seed}/{key}".encode()).digest()
        generator = torch.Generator(image.device)
        generator.manual_seed(int.from_bytes(digest[:8]) >> 1)
        chosen = int(self._votes(network, image, self.n0, generator).argmax())
        votes = int(self._votes(network, image, self.n, generator)[chosen])
        bound = lower_bound(votes, self.n, self.alpha)
        if bound <= 0.5:
            return Certificate(ABSTAINED, 0.0, True)
        return Certificate(chosen, self.sigma * float(norm.ppf(bound)), False)

    def _votes(
        self, network: nn.Module, image: Tensor, number: int, generator: torch.Generator
    ) -> Tensor:
        """How often each class is the answer to `number` noisy copies: int64 `(num_classes,)`."""
        votes: Tensor | int = 0
        for start in range(0, number, self.batch):
            noise = image.new_empty(min(self.batch, number - start), *image.shape)
            for copy in noise:  # one draw each, or the size of the batch would change the stream
                copy.normal_(generator=generator)
            logits = network(image + self.sigma * noise)
            votes = votes + torch.bincount(logits.argmax(1).cpu(), minlength=logits.shape[1])
        assert isinstance(votes, Tensor)
        return votes


def lower_bound(votes: int, number: int, alpha: float) -> float:
    """Lower end of the one-sided exact interval of a proportion (Clopper and Pearson 1934).

    Args:
        votes: successes.
        number: trials.
        alpha: probability that the proportion is below it.
    """
    test = binomtest(votes, number, alternative="greater")
    return float(test.proportion_ci(1 - alpha, method="exact").low)
