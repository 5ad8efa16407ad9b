"""A look at a classifier before it is attacked: answers that would make the figures wrong."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from datamodules.files.errors import UserError
from modules.attacks.gradient_paths import GradientPath, gradient_path
from modules.attacks.threats import Threat
from modules.state_dicts.finite import FiniteLogits

RANDOM = 1e-4  # as pyautoattack: distance of logits that are scaled to length 1
# Of an image alone and in a batch, by the same measure; kernels round otherwise in another batch.
BATCH, BATCH_IN_HALF = 1e-2, 5e-2
PROBABILITY = 1e-5
HALVES = (torch.float16, torch.bfloat16)


def probe_classifier(
    network: nn.Module,
    images: Tensor,
    name: str,
    num_classes: int | None = None,
    threats: Mapping[str, Threat] | None = None,
) -> list[str]:
    """Refuses a classifier whose figures would be wrong, and names what makes them doubtful.

    Args:
        network: classifier of pixels in [0, 1], in eval mode.
        images: a few images `(B, 3, H, W)` in [0, 1].
        name: of the classifier, for the messages.
        num_classes: how many classes the data has; None if that is not known.
        threats: by which it will be attacked.

    Returns:
        Doubts, one line each.

    Raises:
        UserError: if it does not give floating point logits `(B, num_classes)` that are finite, and
            that depend on each image alone; changes its input; or passes no finite gradient to the
            images although an attack needs it.
    """
    if len(images) == 1:  # a batch is needed
        images = torch.cat([images, images.flip(-1)])
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.inference_mode(False), torch.random.fork_rng(devices=devices):
        images = images.clone().contiguous()
        with torch.no_grad(), _answering(name, images):
            before = images.clone()
            logits = network(images)
            if not images.equal(before):
                raise UserError(
                    f"model {name} changes the images it is given in place, so what it judges is "
                    "not what was attacked: let its forward work on a copy"
                )
            _require_logits(logits, name, len(images), num_classes)
            FiniteLogits(name)(network, images, logits)
            doubts = _doubts_of_answers(network, logits, name)
            random = _distance(network(images), logits) > RANDOM
            if random:
                doubts.append(_doubt_of_chance(name, threats or {}))
            else:
                _require_single_images(network, images, logits, name)
        for path, attacks in _gradient_attacks(threats or {}).items():
            with torch.enable_grad(), _answering(name, images):
                blind = _blind_images(network, images, name, path, attacks)
            if blind and not random:
                doubts.append(
                    f"WARNING: model {name} passes no gradient to {blind} of {len(images)} images: "
                    f"attacks by gradient ({', '.join(attacks)}) may fail there though the model "
                    "is not robust"
                )
        return doubts


@contextmanager
def _answering(name: str, images: Tensor) -> Iterator[None]:
    """Makes what a foreign network raises at a call one line."""
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"model {name} fails at a batch of images {tuple(images.shape)} of float32 in [0, 1] "
            f"({reason}): wrap it in a module that takes such images"
        ) from error


def _require_logits(logits: object, name: str, count: int, num_classes: int | None) -> None:
    if not isinstance(logits, Tensor):
        keys = f" of {', '.join(map(str, logits))}" if isinstance(logits, Mapping) else ""
        raise UserError(
            f"model {name} answers with a {type(logits).__name__}{keys}, not with a tensor of "
            "logits (N, classes): wrap it in a module that returns the logits alone"
        )
    if logits.ndim != 2 or len(logits) != count:
        raise UserError(
            f"model {name} answers {count} images with a tensor {tuple(logits.shape)}, not with "
            "logits (N, classes): wrap it in a module that returns the logits of the classes"
        )
    if num_classes is not None and logits.shape[1] != num_classes:
        raise UserError(
            f"model {name} has {logits.shape[1]} classes, the data has {num_classes} object "
            "categories: give the data it was trained on"
        )
    if not logits.is_floating_point():
        raise UserError(
            f"model {name} answers in {logits.dtype}, which has no gradient and no margins: let it "
            "return its logits in float32, not classes"
        )


def _doubts_of_answers(network: nn.Module, logits: Tensor, name: str) -> list[str]:
    doubts = []
    if half := _halves(network, logits):
        doubts.append(
            f"WARNING: model {name} computes in {', '.join(half)}: rounding "
            "hides small steps of the attacks, so it may look more robust than in float32"
        )
    sums, low, high = logits.float().sum(1), logits.min(), logits.max()
    if low > -PROBABILITY and high < 1 + PROBABILITY and (sums - 1).abs().max() < PROBABILITY:
        doubts.append(
            f"WARNING: model {name} answers with probabilities (each row is in [0, 1] and sums to "
            "1), not with logits: gradients vanish where it is sure, so it may look more robust "
            "than it is; leave out its soft-max"
        )
    return doubts


def _halves(network: nn.Module, logits: Tensor) -> list[str]:
    return sorted({str(v.dtype) for v in (*network.parameters(), logits) if v.dtype in HALVES})


def _doubt_of_chance(name: str, threats: Mapping[str, Threat]) -> str:
    others = [n for n, t in threats.items() if t.norm and getattr(t, "version", None) != "rand"]
    advice = (
        f", and under {', '.join(others)} cannot be compared with those of other models: use "
        "AutoAttack with version rand, which averages gradients"
    )
    return (
        f"WARNING: model {name} answers the same images differently from call to call: accuracies "
        "are those of one draw" + advice * bool(others)
    )


def _require_single_images(network: nn.Module, images: Tensor, logits: Tensor, name: str) -> None:
    with _answering(name, images[:1]):
        alone = torch.cat([network(image[None]) for image in images])
    limit = BATCH_IN_HALF if _halves(network, logits) else BATCH
    if alone.shape != logits.shape or _distance(alone, logits) > limit:
        raise UserError(
            f"model {name} answers an image otherwise alone than in a batch, so its accuracy "
            "depends on which images are attacked together: let batch norm use its running "
            "statistics (track_running_stats, eval mode)"
        )


def _gradient_attacks(threats: Mapping[str, Threat]) -> dict[GradientPath, list[str]]:
    """Attacks by gradient of the classes, by the path that their gradients take."""
    found: dict[GradientPath, list[str]] = {}
    for name, threat in threats.items():
        if threat.norm and not threat.black_box and not threat.needs_parts:
            found.setdefault(threat.through, []).append(name)
    return found


def _blind_images(
    network: nn.Module, images: Tensor, name: str, path: GradientPath, attacks: list[str]
) -> int:
    """How many images get no gradient of the logits."""
    points = images.clone().requires_grad_()
    with gradient_path(network, path) as attacked:
        logits = attacked(points)
    gradient: Tensor | None = None
    if logits.requires_grad:
        # any direction but that of the sum, which is constant for probabilities
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(logits.shape, generator=generator).to(logits)
        (gradient,) = torch.autograd.grad((logits * weights).sum(), points, allow_unused=True)
    if gradient is None or not gradient.any():
        raise UserError(
            f"model {name} passes no gradient to its images, so attacks by gradient "
            f"({', '.join(attacks)}) would call it robust whatever it is: take detach, no_grad and "
            "rounding out of its forward, or attack with Square alone"
        )
    if not torch.isfinite(gradient).all():
        raise UserError(
            f"model {name} has a gradient that is not finite, at which attacks by gradient "
            f"({', '.join(attacks)}) fail: mend its forward, such as a root or a logarithm of 0"
        )
    return int((~gradient.flatten(1).any(1)).sum())


def _distance(one: Tensor, other: Tensor) -> float:
    """Largest distance of two answers to one image, each scaled to length 1."""
    scaled = [nn.functional.normalize(logits.float(), dim=1, eps=1e-10) for logits in (one, other)]
    return float((scaled[0] - scaled[1]).norm(dim=1).max())
