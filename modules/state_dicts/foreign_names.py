"""Weights under the names of other codes, and which tensor of ours each of them is."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from datamodules.files.errors import UserError
from modules.state_dicts.prefixes import UndoneNames, refuse_foreign_names, undo_prefixes

# Where a part network of ours keeps its backbone.
BACKBONES = ("recogniser.network.", "segmenter.body.")

_MEANS = ("mean", "new_mean", "mu", "pixel_mean", "_mean")
_STDS = ("std", "new_std", "sigma", "pixel_std", "_std")


@dataclass
class FoundWeights:
    """What a state dict holds, by our names.

    Attributes:
        origin: `ours`, `released` (PartImageNet++'s authors), or `plain`, any other classifier.
        backbone: by the timm network's names; what is not known keeps its name.
        parts: all else, by the names of `PartNetwork`.
        normalisation: mean and std in [0, 1] pixel units, if the file holds them.
        notes: what was left out because another tensor of the file stands for it, a line each.
    """

    origin: Literal["ours", "released", "plain"]
    backbone: dict[str, Tensor] = field(default_factory=dict)
    parts: dict[str, Tensor] = field(default_factory=dict)
    normalisation: tuple[list[float], list[float]] | None = None
    notes: list[str] = field(default_factory=list)


def find_weights(
    state: Mapping[str, Tensor], backbone: nn.Module, source: str, levels: int = 3
) -> FoundWeights:
    """Recognises whose names a state dict uses and gives them ours.

    Args:
        state: tensors by name.
        backbone: timm network that they are for.
        source: what the tensors come from, for messages.
        levels: how many blocks the network supervises, for the order of released bypass layers.

    Raises:
        UserError: if the file holds two different networks or no proper normalisation.
    """
    names = [*dict.fromkeys((*backbone.state_dict(), *classifier_names(backbone)))]
    undone = undo_prefixes(state, [place + n for place in BACKBONES for n in names], source)
    if undone.known:
        found = FoundWeights("ours", notes=_notes(undone))
        prefix = next(p for p in BACKBONES if any(name.startswith(p) for name in undone.known))
        for name, value in undone.tensors.items():
            place = found.backbone if name.startswith(prefix) else found.parts
            place[name.removeprefix(prefix)] = value
        return found
    undone = undo_prefixes(state, [f"segmenter.{name}" for name in names], source)
    if any(name.startswith("classifer.") for name in undone.others):
        found = _released(undone.tensors, classifier_names(backbone), levels)
        found.notes = _notes(undone)
        return found
    rest = dict(state)
    normalisation = _take_normalisation(rest, names, source)
    undone = undo_prefixes(rest, names, source)
    config: Any = getattr(backbone, "pretrained_cfg", None) or {}
    refuse_foreign_names(
        undone, names, source, str(config.get("architecture") or type(backbone).__name__)
    )
    return FoundWeights("plain", undone.tensors, normalisation=normalisation, notes=_notes(undone))


def classifier_names(backbone: nn.Module) -> list[str]:
    """Names of the tensors of a timm network's classifier, also of one built without it."""
    config: Any = getattr(backbone, "pretrained_cfg", None) or {}
    layers = config.get("classifier") or "fc"
    layers = [layers] if isinstance(layers, str) else layers
    return [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]


def _released(state: dict[str, Tensor], classifier: list[str], levels: int) -> FoundWeights:
    """The authors' MPM or two-stage network; their levels count from coarse to fine."""
    found = FoundWeights("released")
    two_stage = any(name.startswith("classifer.8.") for name in state)
    for name, value in state.items():
        head, _, rest = name.partition(".")
        separable = rest.replace("conv1.", "depthwise.")
        if head == "segmenter":
            found.backbone[rest] = value
        elif two_stage and name.startswith("segmenter_head.2."):
            found.parts[f"segmenter.head.{separable.removeprefix('2.')}"] = value
        elif two_stage and name.startswith("segmenter_head.1."):
            found.parts[f"segmenter.activation.{rest}"] = value
        elif two_stage and head == "classifer":
            found.parts[f"classifier.layers.{rest}"] = value
        elif name.startswith("classifer.2."):
            layer = classifier[0].rpartition(".")[0]
            found.backbone[f"{layer}.{rest.removeprefix('2.')}"] = value
        elif head in ("cp1", "cp2", "cp3"):
            found.parts[f"bypass.laterals.{levels - int(head[-1])}.{rest}"] = value
        elif head in ("segmenter_head1", "segmenter_head2", "segmenter_head3"):
            part = separable.removeprefix("1.")
            found.parts[f"bypass.heads.{levels - int(head[-1])}.{part}"] = value
        elif head in ("up_layer1", "up_layer2"):
            part = separable.removeprefix("1.")
            found.parts[f"bypass.top_down.{levels - 1 - int(head[-1])}.{part}"] = value
        else:
            found.backbone[name] = value
    return found


def _notes(undone: UndoneNames) -> list[str]:
    notes = [f"{len(undone.twice)} tensors are in the file twice"] * bool(undone.twice)
    count = len(undone.superseded)
    return notes + [f"{count} tensors are left out: the file holds their average"] * bool(count)


def _known_ending(name: str, names: Collection[str]) -> str | None:
    """The longest ending of a dotted name that is one of `names`."""
    while name:
        if name in names:
            return name
        name = name.partition(".")[2]
    return None


def _take_normalisation(
    state: dict[str, Tensor], names: Collection[str], source: str
) -> tuple[list[float], list[float]] | None:
    """Takes mean and std of an input normalisation out of a state dict."""
    found = []
    for name in list(state):
        place, _, last = name.rpartition(".")
        if last not in _MEANS or _known_ending(name, names) or state[name].numel() != 3:
            continue
        std = f"{place}.{_STDS[_MEANS.index(last)]}".removeprefix("." * (not place))
        if std in state and state[std].numel() == 3:
            values = [state.pop(key).double().flatten().tolist() for key in (name, std)]
            found.append(tuple([round(value, 6) for value in part] for part in values))
    if not found:
        return None
    mean, std_values = found[0]
    if any(other != found[0] for other in found):
        raise UserError(f"{source} holds normalisations that differ: {found[0]} and {found[1]}")
    if not all(0 <= value <= 1 for value in mean) or not all(0 < v <= 1 for v in std_values):
        raise UserError(
            f"{source} normalises by mean {mean} and std {std_values}, which are not of pixels in "
            "[0, 1]: give the network's weights alone"
        )
    return mean, std_values
