"""The fused part loss against the dense one in float64 on the CPU."""

import torch
from torch import Tensor

from benchmarks.gpu_check.exact import deviation
from benchmarks.gpu_check.results import Check
from benchmarks.gpu_check.scale import Setting
from benchmarks.part_loss import dense, fused, inputs

AGAINST = "dense maps, float64, CPU"
# Of value and gradients. bfloat16 keeps 8 bits of the logits, and gradients are products of it.
# On a CPU, at full size, they deviate by 1e-7 and 1e-6, in bfloat16 by 4e-6 and 4e-3.
TOLERANCES = {torch.float32: (1e-5, 1e-4), torch.bfloat16: (1e-3, 2e-2)}
BATCH = 2


def check(setting: Setting) -> list[Check]:
    """In float32 and in bfloat16, each on the values that its own rounding leaves."""
    results = []
    for dtype, (of_value, of_gradients) in TOLERANCES.items():
        given = inputs(BATCH, setting.scale.shape.part_classes, dtype, setting.device)
        value = fused(*given)
        value.backward()
        features, weights, labels, image = given
        exact = [[_exact(t) for t in tensors] for tensors in (features, weights)]
        wanted = dense(*exact, labels.cpu(), image.cpu().double())
        wanted.backward()
        found = [t.grad for t in (*features, *weights)]
        name = str(dtype).removeprefix("torch.")
        results += [
            Check(f"part loss, {name}", deviation([value], [wanted]), of_value, AGAINST),
            Check(
                f"part loss, {name}: gradients",
                deviation(found, [t.grad for part in exact for t in part]),  # type: ignore[arg-type]
                of_gradients,
                AGAINST,
            ),
        ]
    return results


def _exact(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().double().requires_grad_()
