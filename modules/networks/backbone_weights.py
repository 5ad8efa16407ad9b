"""Weight files of timm backbones, loaded so that no tensor is missed in silence."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datamodules.files.errors import UserError
from modules.networks.timm_networks import timm_network
from modules.state_dicts.prefixes import refuse_foreign_names, undo_prefixes
from modules.state_dicts.weight_files import load_strictly, read_state

COUNTER = "num_batches_tracked"


def backbone_state(
    backbone: str, weights: Path, backbone_args: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """The tensors of a whole timm network from a file; its classifier may be any or none.

    `features_only` networks of timm load what fits and leave the rest random without a word, so
    the file goes through the whole network first. Names of released codes that timm knows, such as
    those of Swin, are translated by timm.

    Args:
        backbone: name of the network.
        weights: weight file, in the usual wrappings and below the usual prefixes.
        backbone_args: further arguments of the network.

    Raises:
        MissingInputError: if there is no such file.
        UserError: if it is damaged or its tensors are not those of the network.
    """
    whole = timm_network(backbone, backbone_args)
    own = whole.state_dict()
    undone = undo_prefixes(read_state(weights), own, str(weights))
    state = undone.tensors
    # timm's modules of networks whose names once were others have this function
    translate = getattr(sys.modules[type(whole).__module__], "checkpoint_filter_fn", None)
    if translate is not None:
        try:
            state = translate(state, whole)
        except (KeyError, RuntimeError, AttributeError, ValueError, IndexError) as error:
            raise UserError(
                f"{weights} does not fit {backbone} ({error!r}): give weights of this backbone"
            ) from None
    classifier = whole.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{x}." for x in ([classifier] if isinstance(classifier, str) else classifier))
    state = {name: value for name, value in state.items() if not name.startswith(heads)}
    state |= {name: value for name, value in own.items() if name.startswith(heads)}
    if not any(name.endswith(COUNTER) for name in state):  # files of old torch versions
        state |= {n: torch.zeros_like(v) for n, v in own.items() if n.endswith(COUNTER)}
    if 2 * len(own.keys() & state.keys()) < len(own):
        refuse_foreign_names(undone, list(own), str(weights), backbone)
    load_strictly(whole, state, str(weights))
    return whole.state_dict()
