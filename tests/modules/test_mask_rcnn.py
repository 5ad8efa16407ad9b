import pytest
import torch
from torch import Tensor
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor

from modules.networks.mask_rcnn import PartMaskRCNN
from modules.networks.part_roi_heads import ClassMaskPredictor
from modules.networks.timm_fpn import TimmFPN


def network(num_classes: int = 7, backbone: str = "test_resnet", **kwargs: float) -> PartMaskRCNN:
    torch.manual_seed(0)
    settings = {"score_threshold": 0.05, "detections_per_image": 10_000} | kwargs
    return PartMaskRCNN(
        TimmFPN(backbone, 16),
        num_classes,
        mask_channels=(16,),
        box_head_dim=16,
        min_size=64,
        max_size=96,
        anchor_sizes=(8, 16, 32, 48, 64),
        rpn_proposals=30,
        rois_per_image=16,
        **settings,
    )


def target(*boxes: tuple[int, int, int, int]) -> dict[str, Tensor]:
    masks = torch.zeros(len(boxes), 64, 80, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = 1
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        "labels": torch.arange(1, len(boxes) + 1),
        "masks": masks,
    }


def images(count: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, 64, 80, generator=generator) for _ in range(count)]


def test_mask_of_one_class_equals_channel_of_all() -> None:
    torch.manual_seed(0)
    usual = MaskRCNNPredictor(4, 6, 5)
    ours = ClassMaskPredictor(4, 6, 5)
    ours.upsample.load_state_dict(usual.conv5_mask.state_dict())
    ours.logits.load_state_dict(usual.mask_fcn_logits.state_dict())
    features, labels = torch.randn(8, 4, 3, 3), torch.randint(5, (8,))
    expected = usual(features)[torch.arange(8), labels]
    torch.testing.assert_close(ours(features, labels), expected)


def test_losses_reach_all_parameters_and_empty_targets_are_fine() -> None:
    model = network()
    losses = model(images(), [target((5, 5, 40, 40), (30, 20, 70, 60)), target()])
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    model.zero_grad()
    sum(model(images(), [target(), target()]).values()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("backbone", ["test_resnet"])
def test_filter_inside_equals_filter_after(backbone: str) -> None:
    model = network(backbone=backbone).eval()
    allowed = torch.tensor(
        [
            [True, True, False, True, False, False, False],
            [True, False, False, False, True, True, True],
        ]
    )
    with torch.no_grad():
        plain, filtered = model.detect(images(), [None, allowed])
    for everything, inside, parts in zip(plain, filtered, allowed, strict=True):
        after = parts[everything["labels"]]
        assert 0 < len(inside["labels"]) < len(everything["labels"])
        for name, value in inside.items():
            torch.testing.assert_close(value, everything[name][after], rtol=0, atol=1e-5)


def test_detections_are_sorted_bounded_and_in_the_image() -> None:
    model = network(detections_per_image=5).eval()
    with torch.no_grad():
        (found,) = model.detect([torch.rand(3, 200, 120)])
    assert found[0]["masks"].shape == (5, 200, 120)
    assert found[0]["masks"].dtype == torch.bool
    assert (found[0]["scores"].diff() <= 0).all()
    assert (found[0]["labels"] > 0).all()
    boxes = found[0]["boxes"]
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([120.0, 200.0] * 2)).all()


def test_no_detection_is_an_empty_result() -> None:
    model = network(score_threshold=0.999).eval()
    with torch.no_grad():
        (found,) = model.detect(images(1))
    assert found[0]["masks"].shape == (0, 64, 80)


def test_swin_backbone_at_odd_size() -> None:
    torch.manual_seed(0)
    swin = "swin_tiny_patch4_window7_224"
    model = network(backbone=swin)
    assert [x.shape[-1] for x in model.backbone(torch.rand(1, 3, 96, 160)).values()] == [
        40, 20, 10, 5, 3,
    ]  # fmt: skip
    losses = model(images(), [target((5, 5, 40, 40)), target()])
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_normalisation_is_the_backbones() -> None:
    layer = network().backbone.normalisation
    mean, std = layer.mean.flatten(), layer.std.flatten()
    torch.testing.assert_close(layer(mean.view(3, 1, 1)), torch.zeros(3, 1, 1))
    torch.testing.assert_close(layer((mean + std).view(3, 1, 1)), torch.ones(3, 1, 1))


@pytest.mark.parametrize(
    ("backbone", "message"),
    [("no_such_network", "no network of timm"), ("vit_tiny_patch16_224", "strides")],
)
def test_unfit_backbone(backbone: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TimmFPN(backbone, 16)
