"""Parameter groups: scaled learning rates, no weight decay where it does harm."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import nn

from datamodules.files.errors import UserError

POSITIONS = ("relative_position_bias_table", "absolute_pos_embed", "pos_embed", "cls_token")
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


def parameter_groups(
    parameters: Iterable[tuple[str, nn.Parameter]],
    lr_scales: Mapping[str, float] | None = None,
    undecayed: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Groups for an optimiser; those that need no gradient are left out.

    Args:
        parameters: parameters by name.
        lr_scales: factors of the learning rate by name; 1 where there is none.
        undecayed: names without weight decay.

    Returns:
        Groups with `params`, `lr_scale` and, where it is 0, `weight_decay`, in the order of their
        first parameters.
    """
    scales = lr_scales or {}
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for name, parameter in parameters:
        if not parameter.requires_grad:
            continue
        scale, decayed = scales.get(name, 1.0), name not in undecayed
        if (scale, decayed) not in groups:
            group: dict[str, Any] = {"params": [], "lr_scale": scale}
            groups[scale, decayed] = group if decayed else group | {"weight_decay": 0.0}
        groups[scale, decayed]["params"].append(parameter)
    return list(groups.values())


def layer_scales(network: Any, layer_decay: float) -> dict[str, float]:
    """Factors of the learning rate that fall from layer to layer towards the input.

    A backbone layer's rate is `layer_decay` times that of the layer after it, and the rate of
    what is not backbone is 1 (BEiT, Bao et al. 2022; for detection ViTDet, Li et al. 2022).

    Args:
        network: module whose `layer_ids()` gives the depth of its backbone's parameters, from 0;
            not asked with `layer_decay` 1.
        layer_decay: factor from a layer to the one before it, in (0, 1].

    Raises:
        UserError: if `layer_decay` is out of range or the network tells no layers.
    """
    if not 0 < layer_decay <= 1:
        raise UserError(f"layer_decay {layer_decay} is not in (0, 1]")
    if layer_decay == 1:
        return {}
    if not hasattr(network, "layer_ids"):
        raise UserError(
            f"{type(network).__name__} tells no layers of its backbone: set layer_decay to 1"
        )
    layers: dict[str, int] = network.layer_ids()
    depth = max(layers.values(), default=-1) + 1
    return {name: layer_decay ** (depth - layer) for name, layer in layers.items()}


def vectors(network: nn.Module) -> set[str]:
    """Names of biases, norm parameters and position embeddings, which timm does not decay."""
    return {
        name
        for name, parameter in network.named_parameters()
        if parameter.ndim <= 1 or name.endswith(POSITIONS)
    }


def norm_parameters(network: nn.Module) -> set[str]:
    """Names of the parameters of normalisation layers, which detectron2 does not decay."""
    return {
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in network.named_modules()
        if isinstance(module, NORMS)
        for name, _ in module.named_parameters(recurse=False)
    }
