"""Initial weights of a recognition network, from our files and from those of others."""

from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from datamodules.files.errors import UserError
from modules.networks.part_network import BypassNetwork, PartNetwork
from modules.state_dicts.foreign_names import FoundWeights, classifier_names, find_weights
from modules.state_dicts.run_checkpoints import CHECKPOINTS, best_checkpoint
from modules.state_dicts.weight_files import load_strictly, read_state, shortened
from modules.weights.classifier_folder import EXPORT, TARGET, weight_file
from modules.weights.normalisation_records import recorded_normalisation
from modules.weights.part_network_folder import find_normalisation


def load_initial_weights(
    network: PartNetwork,
    weights: Path,
    *,
    fresh_classifier: bool = False,
    trust_part_order: bool = False,
    keep_normalisation: bool = False,
) -> list[str]:
    """Fills a recognition network with weights that were trained before.

    Known are our own checkpoints and exports, complete with what predicts parts; weights of the
    backbone alone under timm's names, which for a ResNet are torchvision's, below any prefix such
    as `module.` or `module.model.`; and what the authors of PartImageNet++ released. The input
    normalisation that the weights were trained with replaces the network's, where something tells
    it, see `recorded_normalisation`. Every tensor is either used or, like
    the choices made, named: in the log where leaving it is right, else in the error.

    Args:
        network: network to fill, on the CPU.
        weights: checkpoint or weight file, timm folder, or run folder, whose best checkpoint is
            taken; or a word, see `named_model`.
        fresh_classifier: leave the classifier as it is where the file has none or one for another
            number of classes.
        trust_part_order: take the part layers of a released checkpoint, too: its part classes
            must be ours in our order, which the file does not tell.
        keep_normalisation: the network's was given, so nothing replaces it.

    Returns:
        What was not simply loaded, a line each.

    Raises:
        MissingInputError: if there are no such weights.
        UserError: if they are damaged or not those of the network.
    """
    path = _best_or(weights)
    backbone = network.backbone()
    levels = 3
    if isinstance(network, BypassNetwork) and network.bypass is not None:
        levels = network.num_supervised
    matched = find_weights(read_state(path), backbone, str(path), levels)
    notes = matched.notes + _fit_counters(matched, backbone)
    notes += _fit_classifier(matched, backbone, fresh_classifier, str(path))
    notes += _fit_parts(matched, network, trust_part_order)
    prefix = backbone_prefix(network)
    state = {prefix + name: value for name, value in matched.backbone.items()} | matched.parts
    load_strictly(network, state, str(path))
    normalise = find_normalisation(network)
    recorded = recorded_normalisation(path, matched)
    if recorded is not None and not keep_normalisation:
        normalise.take(recorded)
    elif recorded is not None and recorded.values != normalise.values:
        notes.append(f"not normalised as {recorded.source} says, by {recorded.values}")
    rank_zero_info("; ".join([f"initial weights from {path}", *notes, str(normalise)]))
    return notes


def backbone_prefix(network: PartNetwork) -> str:
    """What the names of a network's backbone start with in its state dict."""
    backbone = network.backbone()
    return next(f"{name}." for name, module in network.named_modules() if module is backbone)


def _best_or(weights: Path) -> Path:
    run = (weights / CHECKPOINTS).is_dir()
    if run and ((weights / CHECKPOINTS / "best.ckpt").is_file() or not (weights / EXPORT).is_dir()):
        return best_checkpoint(weights, TARGET)
    return weight_file(weights)


def _fit_counters(matched: FoundWeights, backbone: nn.Module) -> list[str]:
    """Files of old torch versions do not count batches."""
    counters = {
        name: value
        for name, value in backbone.state_dict().items()
        if name.endswith("num_batches_tracked") and name not in matched.backbone
    }
    if any(name.endswith("num_batches_tracked") for name in matched.backbone):
        return []
    matched.backbone |= {name: torch.zeros_like(value) for name, value in counters.items()}
    return ["the file counts no batches of batch norm"] * bool(counters)


def _fit_classifier(
    matched: FoundWeights, backbone: nn.Module, fresh_classifier: bool, source: str
) -> list[str]:
    """Drops a classifier that the network has no place for, or keeps the network's own."""
    own = backbone.state_dict()
    given = [name for name in classifier_names(backbone) if name in matched.backbone]
    wanted = [name for name in classifier_names(backbone) if name in own]
    if not wanted:
        for name in given:
            del matched.backbone[name]
        return [f"left out {', '.join(given)}: this network has no such layer"] * bool(given)
    if all(_shape(matched.backbone, name) == _shape(own, name) for name in wanted):
        return []
    mismatch = ", ".join(
        f"{name} {_shape(matched.backbone, name)} instead of {_shape(own, name)}" for name in wanted
    )
    if not fresh_classifier:
        what = "is of another number of classes"
        if any(name not in matched.backbone for name in wanted):
            what = "holds no whole classifier"
        elif any(matched.backbone[n].shape[1:] != own[n].shape[1:] for n in wanted):
            return []  # another architecture, which strict loading says
        raise UserError(
            f"{source} {what} ({mismatch}): --model.init_args.fresh_classifier=true starts with a "
            "new one"
        )
    matched.backbone |= {name: own[name] for name in wanted}
    return [f"the classifier is fresh ({mismatch})"]


def _fit_parts(matched: FoundWeights, network: PartNetwork, trust_part_order: bool) -> list[str]:
    """Decides on what predicts parts; where the file has nothing of it, it stays fresh."""
    prefix = backbone_prefix(network)
    own = {n: v for n, v in network.state_dict().items() if not n.startswith(prefix)}
    notes = []
    if matched.origin == "released" and trust_part_order:
        bypass = {n: v for n, v in matched.parts.items() if n.startswith("bypass.")}
        unused = [n for n in bypass if n not in own and own]
        for name in unused:
            del matched.parts[name]
        if unused:
            notes.append(f"left out what this bypass lacks: {shortened(unused)}")
    elif matched.origin == "released" and matched.parts:
        matched.parts.clear()
        notes.append("left out the part layers: whether their part order is ours is unknown")
    if not matched.parts and own:
        matched.parts |= own
        notes.append(f"{len(own)} tensors outside the backbone are fresh")
    return notes


def _shape(state: dict[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(state[name].shape) if name in state else None
