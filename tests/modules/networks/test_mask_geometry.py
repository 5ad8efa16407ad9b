"""Masks between image and region: no side is preferred, and what goes in comes out."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from modules.networks.mask_geometry import CentredTransform, mask_targets, paste_masks

HEIGHT, WIDTH = 60, 90


def discs(radius: float, number: int = 200) -> Tensor:
    """Masks `(N, H, W)` uint8 of discs at random places."""
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    places = torch.rand(number, 2, 1, 1) * torch.tensor([15.0, 20.0])[:, None, None] + 25
    squares = (rows + 0.5 - places[:, 0]) ** 2 + (columns + 0.5 - places[:, 1]) ** 2
    return (squares <= radius**2).to(torch.uint8)


def centres(masks: Tensor) -> Tensor:
    """Means `(N, 2)` of the rows and columns of their pixels."""
    grid = torch.stack(torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij"))
    return (grid * masks[:, None]).sum((2, 3)) / masks.sum((1, 2))[:, None]


def around(masks: Tensor) -> Tensor:
    """Boxes `(N, 4)` that leave a random margin, as those of detections do."""
    boxes = []
    for mask in masks:
        rows, columns = (mask.any(side).nonzero() for side in (1, 0))
        boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    margin = torch.rand(len(masks), 4) * 1.5
    return torch.tensor(boxes).float() + margin * torch.tensor([-1, -1, 1, 1])


@pytest.mark.parametrize("radius", [2.5, 5.0, 12.0])
@pytest.mark.parametrize("scale", [1.0, 0.717, 1.37, 2.0])
def test_targets_that_are_pasted_are_the_masks(radius: float, scale: float) -> None:
    """Through the resizing of the network, the grid of a region, and back into the image."""
    torch.manual_seed(0)
    masks = discs(radius)
    boxes = around(masks)
    transform = CentredTransform(round(scale * HEIGHT), 1000, [0.0] * 3, [1.0] * 3).train()
    target = {"boxes": boxes, "masks": masks, "labels": torch.ones(len(masks), dtype=torch.int64)}
    batch, (resized,) = transform([torch.zeros(3, HEIGHT, WIDTH)], [target])
    assert resized["masks"].shape[1:] == batch.image_sizes[0]
    indices = torch.arange(len(masks))
    grids = mask_targets(resized["masks"], resized["boxes"], indices, 28)
    found = paste_masks(grids, boxes, (HEIGHT, WIDTH))
    assert (centres(found) - centres(masks)).mean(0).abs().max() < 0.1
    both, either = (found & masks.bool()).sum(), (found | masks.bool()).sum()
    assert both / either > (0.9 if scale >= 1 else 0.8)
    assert found.sum() / masks.sum() == pytest.approx(1, abs=0.12 if scale < 1 else 0.07)


def test_pasting_is_bilinear_with_zeros_outside() -> None:
    torch.manual_seed(1)
    grids = torch.rand(70, 5, 5)  # more than are pasted at a time
    low, size = torch.rand(70, 2) * 40 - 5, torch.rand(70, 2) * 30 + 1
    boxes = torch.cat([low, low + size], 1)
    rows = ((torch.arange(HEIGHT) + 0.5 - boxes[:, 1:2]) / size[:, 1:]) * 2 - 1
    columns = ((torch.arange(WIDTH) + 0.5 - boxes[:, :1]) / size[:, :1]) * 2 - 1
    places = torch.stack(
        [
            columns[:, None].expand(-1, HEIGHT, WIDTH),
            rows[:, :, None].expand(-1, HEIGHT, WIDTH),
        ],
        -1,
    )
    wanted = F.grid_sample(grids[:, None], places, align_corners=False)[:, 0]
    found = paste_masks(grids, boxes, (HEIGHT, WIDTH))
    sure = (wanted - 0.5).abs() > 1e-5
    assert torch.equal(found[sure], (wanted >= 0.5)[sure])
    assert 0 < found.sum() < sure.sum()


def test_no_masks_and_boxes_without_area() -> None:
    assert paste_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), (4, 6)).shape == (0, 4, 6)
    empty = paste_masks(torch.ones(1, 28, 28), torch.tensor([[3.0, 1.0, 3.0, 1.0]]), (4, 6))
    assert not empty.any()
    none = mask_targets(torch.zeros(0, 4, 6), torch.zeros(0, 4), torch.zeros(0).long(), 28)
    assert none.shape == (0, 28, 28)


def test_targets_are_shares_of_cells() -> None:
    """Half of the box's cells are covered, those at the edge of the mask by half."""
    mask = torch.zeros(1, 8, 8, dtype=torch.uint8)
    mask[0, :, :5] = 1
    box, index = torch.tensor([[2.0, 2.0, 6.0, 6.0]]), torch.zeros(1, dtype=torch.int64)
    wanted = torch.tensor([[1.0, 0.5], [1.0, 0.5]])
    assert torch.allclose(mask_targets(mask, box, index, 2)[0], wanted)
