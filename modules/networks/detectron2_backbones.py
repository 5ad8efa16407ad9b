"""Backbones of detectron2 and their pretrained weights from a local file."""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.utils.checkpoint
from detectron2.layers.batch_norm import NaiveSyncBatchNorm
from detectron2.modeling import SwinTransformer
from detectron2.modeling.backbone import Backbone, BasicStem, ResNet
from detectron2.modeling.backbone.swin import SwinTransformerBlock
from torch import Tensor, nn

from datamodules.files.errors import MissingInputError, UserError
from modules.state_dicts.prefixes import undo_prefixes
from modules.state_dicts.weight_files import load_checkpoint, load_strictly, state_of

# embed_dim, depths, num_heads, drop_path_rate (Liu et al. 2021; "test" is for trials)
SWIN: dict[str, tuple[int, tuple[int, ...], tuple[int, ...], float]] = {
    "swin_test": (16, (1, 1, 1, 1), (1, 2, 4, 8), 0.0),
    "swin_tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24), 0.2),
    "swin_small": (96, (2, 2, 18, 2), (3, 6, 12, 24), 0.2),
    "swin_base": (128, (2, 2, 18, 2), (4, 8, 16, 32), 0.4),
    "swin_large": (192, (2, 2, 18, 2), (6, 12, 24, 48), 0.4),
}
RESNET = {f"resnet{depth}": depth for depth in (18, 34, 50, 101, 152)}
# What a classifier's file holds beyond a detection backbone: its head, the norm before the head
# and the masks of shifted windows, which depend on the image size.
CLASSIFIER_ONLY = re.compile(r"^(head|fc|norm|stem\.fc|linear)\.|\.attn_mask$")
OUTPUT_NORM = re.compile(r"^norm[0-3]\.")


def build_backbone(name: str, weights: Path | None, grad_checkpointing: bool) -> Backbone:
    """Backbone of four stages with strides 4, 8, 16 and 32.

    Args:
        name: a key of `SWIN` or `RESNET`. The batch normalisation of a ResNet is trained and
            shared by all ranks, as in detectron2's LSJ baselines.
        weights: local file with weights of that backbone; None leaves them random.
        grad_checkpointing: compute the blocks again in the backward pass to save memory.

    Raises:
        UserError: if there is no such backbone, it cannot do without its activations, or the
            weights are not its own.
        MissingInputError: if `weights` does not exist.
    """
    if name in SWIN:
        width, depths, heads, drop_path = SWIN[name]
        network: Backbone = SwinTransformer(
            embed_dim=width,
            depths=depths,
            num_heads=heads,
            drop_path_rate=drop_path,
        )
        if grad_checkpointing:
            for module in network.modules():
                if type(module) is SwinTransformerBlock:
                    module.__class__ = RecomputedBlock
    elif name in RESNET:
        if grad_checkpointing:
            raise UserError(
                f"grad_checkpointing would update the batch statistics of {name} twice: "
                "choose a Swin backbone or set it to false"
            )
        network = _resnet(RESNET[name])
    else:
        known = ", ".join([*SWIN, *RESNET])
        raise UserError(f"backbone '{name}' is none of the detectron2 engine: {known}")
    if weights is not None:
        load_backbone(network, weights)
    return network


class RecomputedBlock(SwinTransformerBlock):
    """Block of a Swin whose activations are computed again in the backward pass.

    The library's own option takes the reentrant kind, which torch is giving up.
    """

    def forward(self, x: Tensor, mask_matrix: Tensor) -> Tensor:
        """Features `(B, H * W, C)` of such, with the attention mask of shifted windows."""
        forward: Callable[..., Tensor] = super().forward
        return torch.utils.checkpoint.checkpoint(forward, x, mask_matrix, use_reentrant=False)


def layer_ids(network: nn.Module) -> dict[str, int]:
    """Depth of each pretrained parameter: 0 for the stem, then one layer a block.

    What follows the last block of a stage within it (a Swin's downsampling) counts as that block;
    the norms of a Swin's outputs are new and have no entry.
    """
    depths: dict[str, int] = {}
    blocks: list[str] = []
    for name, _ in network.named_parameters():
        if OUTPUT_NORM.match(name):
            continue
        block = re.match(r"(layers\.\d+\.blocks\.\d+|res[2-5]\.\d+)\.", name)
        if block and (not blocks or blocks[-1] != block[1]):
            blocks.append(block[1])
        depths[name] = len(blocks)
    return depths


def load_backbone(network: nn.Module, path: Path) -> None:
    """Fills a backbone with the weights of a file.

    Args:
        network: backbone from `build_backbone`.
        path: Swin's released file, a torchvision ResNet, detectron2's `.pkl` of either, or a
            whole detector of detectron2, whose backbone is taken.

    Raises:
        MissingInputError: if there is no such file.
        UserError: if it is damaged or does not fit; missing and leftover tensors are listed.
    """
    if not path.is_file():
        raise MissingInputError(
            f"backbone weights {path} do not exist: docs/detectron2.md names the files that fit"
        )
    content = _read_pickle(path) if path.suffix == ".pkl" else load_checkpoint(path)
    own = network.state_dict()
    inside = "backbone.bottom_up."
    names = [place + name for place in (inside, "") for name in own]
    state = undo_prefixes(state_of(content, str(path)), names, str(path)).tensors
    if any(name.startswith(inside) for name in state):
        state = {k.removeprefix(inside): v for k, v in state.items() if k.startswith(inside)}
    if isinstance(network, ResNet):
        state = {_resnet_name(name): value for name, value in state.items()}
    state = {k: v for k, v in state.items() if k in own or not CLASSIFIER_ONLY.search(k)}
    load_strictly(network, _with_new_tensors(state, own), str(path))


def _with_new_tensors(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Adds what no classifier has: the norms of a Swin's outputs and the counts of batches."""
    fresh = {
        name: value
        for name, value in own.items()
        if OUTPUT_NORM.match(name) or name.endswith("num_batches_tracked")
    }
    return fresh | state


def _resnet(depth: int) -> ResNet:
    stages = ResNet.make_default_stages(
        depth, norm=NaiveSyncBatchNorm, **({} if depth < 50 else {"stride_in_1x1": False})
    )
    stem = BasicStem(in_channels=3, out_channels=64, norm=NaiveSyncBatchNorm)
    return ResNet(stem, stages, out_features=["res2", "res3", "res4", "res5"])


def _resnet_name(name: str) -> str:
    """detectron2's name of a tensor of torchvision's ResNet; other names stay."""
    if name.startswith(("conv1.", "bn1.")):
        name = f"stem.{name}"
    for pattern, new in (
        (r"^layer([1-4])\.", lambda match: f"res{int(match[1]) + 1}."),
        (r"\bbn([1-3])\.", r"conv\1.norm."),
        (r"downsample\.0\.", "shortcut."),
        (r"downsample\.1\.", "shortcut.norm."),
    ):
        name = re.sub(pattern, new, name)
    return name


class _ArraysOnly(pickle.Unpickler):
    """Reads pickles of NumPy arrays and plain values; refuses everything that could run code."""

    ALLOWED = frozenset(
        {
            ("multiarray", "_reconstruct"),
            ("multiarray", "scalar"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
            ("collections", "OrderedDict"),
        }
    )

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        place = module.removeprefix("numpy.core.").removeprefix("numpy._core.")
        if (place, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it wants {module}.{name}")
        found: Callable[..., Any] = super().find_class(module, name)
        return found


def _read_pickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return _tensors(_ArraysOnly(file, encoding="latin1").load())
    except (pickle.UnpicklingError, EOFError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is no pickle of NumPy arrays ({error})") from None


def _tensors(content: Any) -> Any:
    """The same with tensors for arrays, also in dicts within dicts."""
    if isinstance(content, dict):
        return {name: _tensors(value) for name, value in content.items()}
    return torch.as_tensor(content) if isinstance(content, np.ndarray | np.generic) else content
