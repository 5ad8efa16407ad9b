"""Parameter groups: layer-wise decay of the learning rate, no weight decay on norms."""

from typing import Any

from torch import nn

from datamodules.files.errors import UserError

UNDECAYED = ("relative_position_bias_table", "absolute_pos_embed", "pos_embed", "cls_token")


def parameter_groups(network: Any, layer_decay: float, decay_norms: bool) -> list[dict[str, Any]]:
    """Groups for an optimiser; `lr_scale` of a group is to be multiplied onto its rate.

    A backbone layer's rate is `layer_decay` times that of the layer after it, and the rate of
    what is not backbone is 1 (BEiT, Bao et al. 2022; for detection ViTDet, Li et al. 2022).

    Args:
        network: module whose `layer_ids()` gives the depth of its backbone's parameters, from 0;
            not asked with `layer_decay` 1.
        layer_decay: factor from a layer to the one before it, in (0, 1].
        decay_norms: False sets `weight_decay` to 0 for one-dimensional parameters (biases,
            norms) and position embeddings.

    Returns:
        Groups with `params`, `lr_scale` and, where it is 0, `weight_decay`.

    Raises:
        UserError: if `layer_decay` is out of range or the network tells no layers.
    """
    if not 0 < layer_decay <= 1:
        raise UserError(f"layer_decay {layer_decay} is not in (0, 1]")
    layers: dict[str, int] = {}
    if layer_decay < 1:
        if not hasattr(network, "layer_ids"):
            raise UserError(
                f"{type(network).__name__} tells no layers of its backbone: set layer_decay to 1"
            )
        layers = network.layer_ids()
    depth = max(layers.values(), default=-1) + 1
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        layer = layers.get(name, depth)
        decayed = decay_norms or not (_is_vector(parameter) or name.endswith(UNDECAYED))
        if (layer, decayed) not in groups:
            group: dict[str, Any] = {"params": [], "lr_scale": layer_decay ** (depth - layer)}
            groups[layer, decayed] = group if decayed else group | {"weight_decay": 0.0}
        groups[layer, decayed]["params"].append(parameter)
    return list(groups.values())


def _is_vector(parameter: nn.Parameter) -> bool:
    return parameter.ndim <= 1
