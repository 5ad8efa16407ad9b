from dataclasses import replace

import pytest
import torch
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads

from datamodules.files.errors import UserError
from modules.networks.mask_rcnn import PartMaskRCNN
from modules.networks.part_roi_heads import ClassMaskPredictor
from modules.networks.timm_fpn import TimmFPN
from tests.modules.tiny_parts import ALLOWED, images, target
from tests.modules.tiny_segmenter import SIZES


def network(num_classes: int = 7, backbone: str = "test_resnet", **kwargs: object) -> PartMaskRCNN:
    torch.manual_seed(0)
    usual = {"score_threshold": 0.05, "detections_per_image": 10_000, "max_size": 96}
    settings = replace(SIZES, rpn_proposals=30, rois_per_image=16, **(usual | kwargs))
    return PartMaskRCNN(TimmFPN(backbone, 16, norm=settings.head_norm), num_classes, settings)


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


def test_frozen_stages_keep_weights_and_statistics() -> None:
    torch.manual_seed(0)
    pyramid = TimmFPN("test_resnet", 16, frozen_stages=2)
    model = PartMaskRCNN(pyramid, 7, replace(SIZES, rpn_proposals=30, rois_per_image=16)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    losses = model(images(), [target((5, 5, 40, 40), (30, 20, 70, 60)), target()])
    torch.stack(list(losses.values())).sum().backward()
    optimiser.step()
    changed = {
        name.split(".")[2]
        for name, value in model.state_dict().items()
        if name.startswith("backbone.body.") and not torch.equal(value, before[name])
    }
    assert changed == {"layer3", "layer4"}


def test_frozen_stages_that_do_not_exist() -> None:
    with pytest.raises(UserError, match="frozen_stages 5 is not 0 to 4"):
        TimmFPN("test_resnet", 16, frozen_stages=5)


@torch.no_grad()
def test_images_without_any_proposal_have_no_detections() -> None:
    model = network().eval()
    model.rpn.min_size = 1e6  # smaller proposals are dropped
    for detections in model.detect(images(), [None, ALLOWED]):
        assert [len(image["labels"]) for image in detections] == [0, 0]
        assert detections[0]["masks"].shape == (0, 64, 80)


@torch.no_grad()
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize(
    ("layer", "what"),
    [
        ("rpn.head.cls_logits", "region proposals"),
        ("rpn.head.bbox_pred", "region proposals"),
        ("roi_heads.box_predictor.cls_score", "class scores"),
    ],
)
def test_outputs_that_are_not_finite_are_no_lack_of_detections(
    layer: str, what: str, value: float
) -> None:
    model = network().eval()
    model.get_submodule(layer).bias[1] = value
    with pytest.raises(ValueError, match=rf"^the detector's {what} are not finite: use another"):
        model.detect(images())
    model.train()
    losses = model(images(), [target((5, 5, 40, 40)), target()])  # here the losses say it
    assert not torch.isfinite(torch.stack(list(losses.values()))).all()


def torchvision_heads(model: PartMaskRCNN) -> RoIHeads:
    """Torchvision's own heads, which know no filter, with the same weights."""
    ours = model.roi_heads
    masks = MaskRCNNPredictor(16, 16, 7)
    masks.conv5_mask.load_state_dict(ours.mask_predictor.upsample.state_dict())
    masks.mask_fcn_logits.load_state_dict(ours.mask_predictor.logits.state_dict())
    return RoIHeads(
        ours.box_roi_pool, ours.box_head, ours.box_predictor, 0.5, 0.5, 16, 0.25, None,
        ours.score_thresh, 0.5, ours.detections_per_img, ours.mask_roi_pool, ours.mask_head, masks,
    ).eval()  # fmt: skip


@torch.no_grad()
def test_equals_torchvision_and_filtering_its_detections() -> None:
    model = network().eval()
    heads = torchvision_heads(model)
    batch, _ = model.transform([model.backbone.normalisation(image) for image in images()])
    features = model.backbone(batch.tensors)
    proposals, _ = model.rpn(batch, features)
    after, _ = heads(features, proposals, batch.image_sizes)
    plain, filtered = model.roi_heads.detect(
        features, proposals, batch.image_sizes, [None, ALLOWED]
    )
    for everything, unfiltered, inside, parts in zip(after, plain, filtered, ALLOWED, strict=True):
        kept = parts[everything["labels"]]
        everything["masks"] = everything["masks"][:, 0]
        assert 0 < len(inside["labels"]) < len(everything["labels"])
        for name, value in everything.items():
            torch.testing.assert_close(unfiltered[name], value, rtol=0, atol=1e-5)
            torch.testing.assert_close(inside[name], value[kept], rtol=0, atol=1e-5)


@torch.no_grad()
def test_filter_inside_keeps_what_other_classes_would_displace() -> None:
    model = network(detections_per_image=12).eval()
    (plain, filtered), (alone,) = model.detect(images(), [None, ALLOWED]), model.detect(images())
    everything = network().eval().detect(images(), [ALLOWED])[0]
    lost = 0
    for one, same, inside, whole, parts in zip(
        plain, alone, filtered, everything, ALLOWED, strict=True
    ):
        assert torch.equal(one["scores"], same["scores"])
        assert len(inside["labels"]) == 12
        lost += 12 - int(parts[one["labels"]].sum())
        torch.testing.assert_close(inside["scores"], whole["scores"][:12])
    assert lost > 0


@torch.no_grad()
def test_cap_follows_the_number_of_parts() -> None:
    model = network(detections_per_part=2).eval()
    plain, filtered = model.detect(images(), [None, ALLOWED])
    assert [len(image["labels"]) for image in filtered] == [4, 6]
    assert all(len(image["labels"]) > 12 for image in plain)
    narrow = network(detections_per_part=2, detections_per_image=5).eval()
    assert [len(i["labels"]) for i in narrow.detect(images(), [ALLOWED])[0]] == [4, 5]


@torch.no_grad()
def test_thousands_of_classes_are_suppressed_as_exactly_as_a_few() -> None:
    few, many = network(num_classes=3).eval(), network(num_classes=3309).eval()
    allowed = torch.zeros(2, 3309, dtype=torch.bool)
    allowed[:, [0, 3307, 3308]] = True
    heads, others = few.roi_heads, many.roi_heads
    many.backbone.load_state_dict(few.backbone.state_dict())
    many.rpn.load_state_dict(few.rpn.state_dict())
    others.box_head.load_state_dict(heads.box_head.state_dict())
    for layer, same in (("cls_score", 1), ("bbox_pred", 4)):
        narrow = getattr(heads.box_predictor, layer)
        wide = getattr(others.box_predictor, layer)
        torch.nn.init.zeros_(wide.weight)
        torch.nn.init.constant_(wide.bias, -100.0 if same == 1 else 0.0)
        for column, source in ((0, 0), (3307, 1), (3308, 2)):
            for whole, part in ((wide.weight, narrow.weight), (wide.bias, narrow.bias)):
                whole[column * same : (column + 1) * same] = part[
                    source * same : (source + 1) * same
                ]
    for one, other in zip(
        few.detect(images())[0], many.detect(images(), [allowed])[0], strict=True
    ):
        assert torch.equal(one["labels"] + 3306, other["labels"])
        torch.testing.assert_close(one["boxes"], other["boxes"], rtol=0, atol=1e-4)


@torch.no_grad()
def test_federated_scores_are_sigmoids_without_background() -> None:
    model = network(class_loss="federated", score_threshold=0.0).eval()
    regions = torch.randn(5, 16)
    expected = 1 / (1 + torch.exp(-model.roi_heads.box_predictor.cls_score(regions)))
    torch.testing.assert_close(model.roi_heads.probabilities(regions), expected)
    assert expected.mean() == pytest.approx(0.01, rel=0.2)
    plain, filtered = model.detect(images(), [None, ALLOWED])
    for one, inside, parts in zip(plain, filtered, ALLOWED, strict=True):
        kept = parts[one["labels"]]
        assert 0 < kept.sum() < len(kept)
        torch.testing.assert_close(inside["scores"], one["scores"][kept], rtol=0, atol=1e-6)


@pytest.mark.parametrize("head_norm", ["", "GN", "BN"])
def test_full_recipe_trains_in_mixed_precision(head_norm: str) -> None:
    model = network(class_loss="federated", rpn_convs=2, head_norm=head_norm)
    model.set_class_counts(torch.arange(7))
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(images(), [target((5, 5, 40, 40), (30, 20, 70, 60)), target()])
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    missing = {name for name, p in model.named_parameters() if p.grad is None}
    assert not missing
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        (found,) = model.eval().detect(images(), [ALLOWED])
    assert all(image["boxes"].dtype == torch.float32 for image in found)


def test_norm_layers() -> None:
    norms = {type(m) for m in network(head_norm="GN").modules() if "Norm" in type(m).__name__}
    assert torch.nn.GroupNorm in norms
    with pytest.raises(ValueError, match="head_norm 'LN'"):
        network(head_norm="LN")


@pytest.mark.parametrize("backbone", ["swin_tiny_patch4_window7_224", "test_resnet"])
def test_gradient_checkpointing_changes_no_gradient(backbone: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        pyramid = TimmFPN(backbone, 16, grad_checkpointing=checkpointing).train()
        for module in pyramid.modules():  # its draws differ when blocks are recomputed
            if type(module).__name__ == "DropPath":
                module.drop_prob = 0.0
        pyramid(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)))[
            "0"
        ].square().sum().backward()
        gradients.append({n: p.grad for n, p in pyramid.named_parameters()})
    for name, gradient in gradients[0].items():
        if gradient is not None:
            torch.testing.assert_close(gradients[1][name], gradient)


def test_checkpointing_that_timm_lacks() -> None:
    with pytest.raises(ValueError, match="grad_checkpointing"):
        TimmFPN("hrnet_w18_small", 16, grad_checkpointing=True)


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
    [("no_such_network", "timm has no network"), ("vit_tiny_patch16_224", "strides")],
)
def test_unfit_backbone(backbone: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TimmFPN(backbone, 16)
