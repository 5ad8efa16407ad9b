"""Synchronised batch norm: two processes are as one with the whole batch.

torch has its kernels for GPUs alone; elsewhere those of `sync_batch_norm_kernels` stand in, and
what torch and this project do around them is tested.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from modules.networks.mask_rcnn import PartMaskRCNN
from modules.networks.structures import NetworkSettings
from tests.modules.networks.sync_batch_norm_kernels import enable_on_cpu
from tests.modules.tiny_segmenter import tiny_segmenter

PROCESSES = 2
GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda", 0) if GPU else torch.device("cpu")  # both processes on one GPU
TINY = {"channels": [8, 8, 16, 16], "stem_width": 8}


class SegmenterLoss(nn.Module):
    """A loss through all layers of the segmenter that `head_norm` normalises."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        network = tiny_segmenter(torch.ones(2, 4).bool(), head_norm="SyncBN").network
        assert isinstance(network, PartMaskRCNN)
        self.pyramid = network.backbone.fpn
        self.box_head, self.mask_head = network.roi_heads.box_head, network.roi_heads.mask_head
        self.widths: list[int] = network.backbone.body.feature_info.channels()

    def inputs(self) -> list[list[Tensor]]:
        """Each process's features: of two images and one, of five regions and three, three and 0.

        Images, and regions that show a part, are spread unevenly in training, too.
        """
        generator = torch.Generator().manual_seed(1)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        return [
            [
                *(draw(images, width, 16 >> i, 16 >> i) for i, width in enumerate(self.widths)),
                draw(regions, 16, 7, 7),
                draw(positive, 16, 14, 14),
            ]
            for images, regions, positive in ((2, 5, 3), (1, 3, 0))
        ]

    def forward(self, *inputs: Tensor) -> Tensor:
        *maps, regions, positive = inputs
        levels = self.pyramid({str(i): level for i, level in enumerate(maps)})
        outputs = [*levels.values(), self.box_head(regions), self.mask_head(positive)]
        return torch.stack([torch.sin(output).sum() for output in outputs]).sum()


class RecogniserLoss(nn.Module):
    """A loss of classes and parts; batch norm is converted as `trainer.sync_batchnorm` does."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        settings = NetworkSettings("bypass", "resnet18", TINY, image_size=32)
        network = settings.build(torch.ones(3, 4).bool())
        self.network = nn.SyncBatchNorm.convert_sync_batchnorm(network)

    def inputs(self) -> list[list[Tensor]]:
        """Each process's images, three and one."""
        generator = torch.Generator().manual_seed(1)
        images = torch.rand(4, 3, 32, 32, generator=generator, dtype=torch.float64)
        return [[part] for part in images.split([3, 1])]

    def forward(self, images: Tensor) -> Tensor:
        logits, levels = self.network.forward_with_parts(images)
        outputs = [logits, *(level.logits() for level in levels)]
        return torch.stack([torch.sin(output).sum() for output in outputs]).sum()


LOSSES: dict[str, Callable[[], Any]] = {"segmenter": SegmenterLoss, "recogniser": RecogniserLoss}


def states(network: Any) -> dict[str, dict[str, Tensor]]:
    """Gradients and running statistics; without any input a layer's gradients are 0."""
    gradients = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in network.named_parameters()
    }
    return {"gradients": gradients, "statistics": dict(network.named_buffers())}


def work(rank: int, folder: Path) -> None:
    """One process's step of all networks, saved."""
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)
    if not GPU:
        enable_on_cpu()
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=PROCESSES
    )
    for name, make in LOSSES.items():
        network = make().double().to(DEVICE)
        network(*(x.to(DEVICE) for x in network.inputs()[rank])).backward()
        found = states(network)
        for gradient in found["gradients"].values():
            dist.all_reduce(gradient)  # as DDP, which refuses such layers on CPUs
        torch.save(found, folder / f"{name}_{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sync")
    mp.spawn(work, args=(folder,), nprocs=PROCESSES)
    return folder


@pytest.mark.parametrize("name", LOSSES)
def test_two_processes_are_as_one_with_the_whole_batch(name: str, saved: Path) -> None:
    network = LOSSES[name]().double().to(DEVICE)
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in network.modules()) > 5
    whole = [torch.cat(parts).to(DEVICE) for parts in zip(*network.inputs(), strict=True)]
    network(*whole).backward()  # without processes, torch's plain batch norm
    expected = states(network)
    for rank in range(PROCESSES):
        found = torch.load(saved / f"{name}_{rank}.pt", weights_only=True)
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
