"""Focal part loss of MPM, fused with the last projection."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from datamodules.files.errors import UserError
from modules.losses.part_level import PartLevel

# Pixels whose logits are held at once: 10 MB of 3,309 classes on a CPU, near its caches; on a GPU
# fewer and larger products.
PIXELS_PER_CHUNK = {"cpu": 784, "cuda": 16384}


def mixture_targets(part_labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Targets of a coarser level as mixtures of the finest level's classes.

    Resizing a one-hot map bilinearly (align_corners=False) by an even integer factor averages
    exactly the four cells around each coarse cell's centre, so the four class ids say it all.

    Args:
        part_labels: `(B, H, W)` int64, the finest level.
        size: `(h, w)` of the coarser level; H/h and W/w must be 1 or even.

    Returns:
        Class ids `(B, h, w, M)` of equal weight 1/M; M is 1 for equal sizes, else 4.

    Raises:
        UserError: if the sizes have another ratio.
    """
    height, width = part_labels.shape[-2:]
    if (height, width) == tuple(size):
        return part_labels.unsqueeze(-1)
    rows, columns = height // size[0], width // size[1]
    if (size[0] * rows, size[1] * columns) != (height, width) or rows % 2 or columns % 2:
        raise UserError(
            f"part labels of {height}x{width} do not reduce to {size[0]}x{size[1]} by an even "
            "factor: choose an image size that all supervised blocks divide"
        )
    cells = part_labels.unflatten(2, (size[1], columns)).unflatten(1, (size[0], rows))
    middle = cells[:, :, rows // 2 - 1 : rows // 2 + 1, :, columns // 2 - 1 : columns // 2 + 1]
    return middle.permute(0, 1, 3, 2, 4).flatten(3)


class PartFocalLoss(nn.Module):
    """Focal loss on soft-max cross-entropy per pixel (PartImageNet++ §4.2, gamma from its code).

    With `CE` the cross-entropy against a smoothed mixture target, a pixel costs
    `(1 - exp(-CE))^gamma * CE`. The logits `(B, K + 1, h, w)` are never held: value and both
    gradients are made chunk by chunk in the forward pass.

    Args:
        gamma: focal exponent, 0 gives plain cross-entropy.
        label_smoothing: weight of the uniform distribution in the target, in [0, 1).
        compiled: compile what is done to the logits of a chunk into few kernels.
    """

    def __init__(
        self, gamma: float = 2.0, label_smoothing: float = 0.1, compiled: bool = False
    ) -> None:
        super().__init__()
        self.gamma = gamma
        self.label_smoothing = label_smoothing
        self.compiled = compiled

    def forward(
        self, features: Tensor, weight: Tensor, targets: Tensor, image_weight: Tensor
    ) -> Tensor:
        """Mean loss over all pixels of the batch, those of zero-weight images counted as 0.

        Args:
            features: `(B, C, h, w)`.
            weight: `(K + 1, C)`, the head's pointwise convolution.
            targets: class ids `(B, h, w, M)` of equal weight, see `mixture_targets`.
            image_weight: `(B,)`, 0 for images without part labels.

        Returns:
            Scalar; float32, or float64 for float64 features.
        """
        chunk_loss = _compiled_chunk_loss() if self.compiled else _chunk_loss
        settings = (self.gamma, self.label_smoothing, chunk_loss)
        loss: Tensor = _FusedFocal.apply(features, weight, targets, image_weight, settings)
        return loss

    def over_levels(
        self, levels: Sequence[PartLevel], part_labels: Tensor, image_weight: Tensor
    ) -> Tensor:
        """Mean of the losses of the supervised resolutions, a scalar.

        Args:
            levels: part logits of each resolution, the finest first.
            part_labels: class ids `(B, H, W)` of the finest.
            image_weight: `(B,)`, 0 for images without part labels.
        """
        losses = []
        for level in levels:
            height, width = level.features.shape[2:]
            targets = mixture_targets(part_labels, (height, width))
            losses.append(self(level.features, level.weight, targets, image_weight))
        return torch.stack(losses).mean()


Gradients = tuple[Tensor, Tensor]
Settings = tuple[float, float, Callable[..., Tensor]]


def _chunk_loss(
    logits: Tensor, ids: Tensor, scale: Tensor, gamma: float, smoothing: float
) -> Tensor:
    """Loss of some pixels; their logits `(N, K + 1)` become its gradient by them.

    Args:
        logits: of each pixel.
        ids: classes `(N, M)` of its target.
        scale: weight `(N,)` of its loss.
        gamma: focal exponent.
        smoothing: share of the uniform distribution in the target.
    """
    classes = logits.shape[1]
    expected = (1 - smoothing) * logits.gather(1, ids).mean(1) + smoothing * logits.mean(1)
    largest = logits.amax(1)
    # soft-max in the logits' memory; what follows needs them no more
    grad = logits.sub_(largest[:, None]).exp_()
    total = grad.sum(1)
    entropy = largest + total.log() - expected
    miss = -torch.expm1(-entropy)
    slope = miss**gamma
    loss = (scale * slope * entropy).sum()
    if gamma:
        slope = slope + gamma * miss ** (gamma - 1) * (1 - miss) * entropy
    slope = slope * scale
    grad *= (slope / total)[:, None]
    grad -= (slope * smoothing / classes)[:, None]
    share = slope * (1 - smoothing) / ids.shape[1]
    grad.scatter_add_(1, ids, -share[:, None].expand_as(ids))
    return loss


@cache
def _compiled_chunk_loss() -> Callable[..., Tensor]:
    """`_chunk_loss` compiled once; the last chunk of a batch may be smaller than the others."""
    return torch.compile(_chunk_loss, dynamic=True)


def _value_and_gradients(
    features: Tensor, weight: Tensor, targets: Tensor, image_weight: Tensor, settings: Settings
) -> tuple[Tensor, Gradients]:
    """Loss and its gradients with respect to features and weight."""
    gamma, smoothing, chunk_loss = settings
    exact = torch.promote_types(features.dtype, torch.float32)
    batch, channels, height, width = features.shape
    projection = weight.to(features.dtype)
    loss = features.new_zeros((), dtype=exact)
    grad_features = torch.zeros_like(features, dtype=_gradient_type(features))
    grad_weight = torch.zeros_like(weight, dtype=exact)
    used = torch.nonzero(image_weight).flatten()  # images without labels cost nothing
    pixels = PIXELS_PER_CHUNK.get(features.device.type, 16384)
    for images in used.split(max(1, pixels // (height * width))):
        rows = features[images].permute(0, 2, 3, 1).reshape(-1, channels)
        ids = targets[images].flatten(0, 2)
        scale = image_weight[images].to(exact).repeat_interleave(height * width)
        scale = scale / (batch * height * width)
        logits = (rows @ projection.T).to(exact)
        loss += chunk_loss(logits, ids, scale, gamma, smoothing)
        low = logits.to(grad_features.dtype)  # they are the gradient now
        del logits
        with torch.autocast(low.device.type, enabled=False):  # it would round float16's again
            grad_weight += low.T @ rows.to(low.dtype)
            grad_rows = (low @ projection.to(low.dtype)).view(-1, height, width, channels)
        grad_features[images] = grad_rows.permute(0, 3, 1, 2)
    return loss, (grad_features, grad_weight.to(_gradient_type(weight)))


def _gradient_type(tensor: Tensor) -> torch.dtype:
    """What a tensor's gradient is held in until the scale of a gradient scaler is known.

    Before it the gradient of a mean over all pixels lies below float16's smallest number.
    """
    return torch.float32 if tensor.dtype == torch.float16 else tensor.dtype


class _FusedFocal(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        targets: Tensor,
        image_weight: Tensor,
        settings: Settings,
    ) -> Tensor:
        ctx.save_for_backward(features, weight, targets, image_weight)
        ctx.settings = settings
        loss, ctx.gradients = _value_and_gradients(
            features, weight, targets, image_weight, settings
        )
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        # Scaled in place and given away, as a copy would double the peak; whoever goes through a
        # retained graph once more has them made again.
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            features, weight, targets, image_weight = ctx.saved_tensors
            _, gradients = _value_and_gradients(
                features, weight, targets, image_weight, ctx.settings
            )
        of_features, of_weight = (g.mul_(grad_output.to(g.dtype)) for g in gradients)
        return of_features, of_weight, None, None, None  # autograd casts them to their inputs' type
