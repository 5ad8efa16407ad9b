"""Focal part loss of MPM, fused with the last projection."""

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

PIXELS_PER_CHUNK = 1024  # a chunk's logits (1024 x 3,309 x 4 bytes) stay within 14 MB


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
        ValueError: if the sizes have another ratio.
    """
    height, width = part_labels.shape[-2:]
    if (height, width) == tuple(size):
        return part_labels.unsqueeze(-1)
    rows, columns = height // size[0], width // size[1]
    if (size[0] * rows, size[1] * columns) != (height, width) or rows % 2 or columns % 2:
        raise ValueError(
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
    """

    def __init__(self, gamma: float = 2.0, label_smoothing: float = 0.1) -> None:
        super().__init__()
        self.gamma = gamma
        self.label_smoothing = label_smoothing

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
        loss: Tensor = _FusedFocal.apply(
            features, weight, targets, image_weight, self.gamma, self.label_smoothing
        )
        return loss


class _FusedFocal(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        features: Tensor,
        weight: Tensor,
        targets: Tensor,
        image_weight: Tensor,
        gamma: float,
        smoothing: float,
    ) -> Tensor:
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]  # type: ignore[attr-defined]
        exact = torch.promote_types(features.dtype, torch.float32)
        used = torch.nonzero(image_weight).flatten()  # images without labels cost nothing
        rows = features[used].permute(0, 2, 3, 1).reshape(-1, features.shape[1])
        ids = targets[used].flatten(0, 2)
        pixels = features.shape[0] * features.shape[2] * features.shape[3]
        scale = image_weight[used].to(exact).repeat_interleave(ids.shape[0] // max(1, len(used)))
        scale = scale / pixels
        projection = weight.to(features.dtype)
        loss = features.new_zeros((), dtype=exact)
        grad_rows = torch.empty_like(rows) if wanted else rows
        grad_weight = torch.zeros_like(weight, dtype=exact) if wanted else weight
        for start in range(0, rows.shape[0], PIXELS_PER_CHUNK):
            chunk = slice(start, start + PIXELS_PER_CHUNK)
            logits = (rows[chunk] @ projection.T).to(exact)
            log_norm = logits.logsumexp(1)
            hit = logits.gather(1, ids[chunk]).mean(1)
            entropy = log_norm - (1 - smoothing) * hit - smoothing * logits.mean(1)
            miss = -torch.expm1(-entropy)
            loss += (scale[chunk] * miss**gamma * entropy).sum()
            if not wanted:
                continue
            slope = miss**gamma
            if gamma:
                slope = slope + gamma * miss ** (gamma - 1) * (1 - miss) * entropy
            slope = (slope * scale[chunk])[:, None]
            grad = logits.sub_(log_norm[:, None]).exp_()  # soft-max, in the logits' memory
            grad -= smoothing / weight.shape[0]
            share = torch.full_like(ids[chunk], 1, dtype=exact) * ((1 - smoothing) / ids.shape[1])
            grad.scatter_add_(1, ids[chunk], -share)
            grad *= slope
            low = grad.to(features.dtype)
            grad_rows[chunk] = low @ projection
            grad_weight += (low.T @ rows[chunk]).to(exact)
        if wanted:
            grad_features = torch.zeros_like(features)
            channels, height, width = features.shape[1:]
            grad_features[used] = grad_rows.view(-1, height, width, channels).permute(0, 3, 1, 2)
            ctx.save_for_backward(grad_features, grad_weight.to(weight.dtype))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        grad_features, grad_weight = ctx.saved_tensors  # type: ignore[attr-defined]
        return (
            grad_features * grad_output.to(grad_features.dtype),
            grad_weight * grad_output.to(grad_weight.dtype),
            None,
            None,
            None,
            None,
        )
