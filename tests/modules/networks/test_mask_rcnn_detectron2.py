import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from datamodules.part_detection import PartDetectionDataModule, collate
from tests.modules.networks.detectron2_engine import INSTALLED, needs_detectron2
from tests.modules.tiny_parts import ALLOWED, images, target
from tests.modules.tiny_segmenter import SIZES


@pytest.mark.skipif(INSTALLED, reason="detectron2 is installed")
def test_without_detectron2_the_error_says_how_to_install_it() -> None:
    with pytest.raises(ValueError, match=r"docs/detectron2\.md") as caught:
        importlib.import_module("modules.networks.mask_rcnn_detectron2")
    assert len(str(caught.value).splitlines()) == 1


def network(num_classes: int = 7, **settings: Any) -> Any:
    from modules.networks.mask_rcnn_detectron2 import Detectron2MaskRCNN

    torch.manual_seed(0)
    usual: dict[str, Any] = {
        "max_size": 96,
        "rpn_proposals": 30,
        "rois_per_image": 16,
        "rpn_convs": 2,
        "class_loss": "federated",
        "score_threshold": 0.005,
        "detections_per_image": 10_000,
    }
    others = {"backbone": "swin_test", "weights": None, "grad_checkpointing": False}
    others |= {name: settings.pop(name) for name in others if name in settings}
    detector = replace(SIZES, **(usual | settings))
    return Detectron2MaskRCNN(num_classes=num_classes, settings=detector, **others)


@needs_detectron2
@pytest.mark.parametrize("head_norm", ["", "SyncBN", "GN"])
@pytest.mark.parametrize("class_loss", ["softmax", "federated"])
def test_losses_reach_all_parameters_and_empty_targets_are_fine(
    head_norm: str, class_loss: str
) -> None:
    model = network(head_norm=head_norm, class_loss=class_loss)
    losses = model(images(), [target((5, 5, 40, 40), (30, 20, 70, 60)), target()])
    assert set(losses) == {"loss_objectness", "loss_rpn", "loss_class", "loss_box", "loss_mask"}
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    model.zero_grad()
    losses = model(images(), [target(), target()])
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


@needs_detectron2
@pytest.mark.parametrize("class_loss", ["softmax", "federated"])
def test_filter_inside_equals_filter_after(class_loss: str) -> None:
    model = network(class_loss=class_loss).eval()
    with torch.no_grad():
        plain, filtered = model.detect(images(), [None, ALLOWED])
    for everything, inside, parts in zip(plain, filtered, ALLOWED, strict=True):
        after = parts[everything["labels"]]
        assert 0 < len(inside["labels"]) < len(everything["labels"])
        for name, value in inside.items():
            torch.testing.assert_close(value, everything[name][after], rtol=0, atol=1e-4)


@needs_detectron2
def test_filtered_scores_and_boxes_are_those_of_the_library() -> None:
    """Against detectron2's own inference over all classes and all mask channels."""
    from detectron2.modeling.postprocessing import detector_postprocess
    from detectron2.modeling.roi_heads.mask_head import mask_rcnn_inference
    from detectron2.structures import ImageList

    model = network(class_loss="softmax").eval()
    heads = model.roi_heads
    with torch.no_grad():
        ((ours,),) = model.detect(images(1))
        batch, _ = model.transform([model.normalisation(image) for image in images(1)])
        batch = ImageList(batch.tensors, batch.image_sizes)
        features = model.backbone(batch.tensor)
        proposals, _ = model.proposal_generator(batch, features)
        (found,) = heads._forward_box(features, proposals)
        levels = [features[name] for name in heads.mask_in_features]
        mask_rcnn_inference(
            heads.mask_head.layers(heads.mask_pooler(levels, [found.pred_boxes])), [found]
        )
        found = detector_postprocess(found, 64, 80)
    torch.testing.assert_close(ours["boxes"], found.pred_boxes.tensor, rtol=0, atol=1e-4)
    torch.testing.assert_close(ours["scores"], found.scores)
    assert torch.equal(ours["labels"], found.pred_classes + 1)
    assert (ours["masks"] == found.pred_masks).float().mean() > 0.999


@needs_detectron2
def test_label_one_is_the_first_class_of_the_library() -> None:
    model = network(class_loss="softmax", score_threshold=0.5).eval()
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.bias[0] = 50.0
        (found,) = model.detect(images(1))
    assert set(found[0]["labels"].tolist()) == {1}
    model.train()
    low = model(images(1), [target((5, 5, 40, 40))])["loss_class"]
    model.roi_heads.box_predictor.cls_score.bias.data.roll(1)
    other = {**target((5, 5, 40, 40)), "labels": torch.tensor([6])}
    assert low < model(images(1), [other])["loss_class"]


@needs_detectron2
def test_caps_of_an_image_and_of_a_part() -> None:
    model = network(detections_per_image=9, detections_per_part=2).eval()
    with torch.no_grad():
        plain, filtered = model.detect([torch.rand(3, 200, 120), torch.rand(3, 60, 90)],
                                       [None, ALLOWED])  # fmt: skip
    assert [len(found["labels"]) for found in plain] == [9, 9]
    assert [len(found["labels"]) for found in filtered] == [4, 6]
    assert plain[0]["masks"].shape == (9, 200, 120)
    assert plain[0]["masks"].dtype == torch.bool
    assert (plain[0]["scores"].diff() <= 0).all()
    boxes = plain[0]["boxes"]
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([120.0, 200.0] * 2)).all()


@needs_detectron2
def test_untrained_sigmoid_of_many_classes_stays_affordable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every class of every proposal passes the threshold; the best ones are still found."""
    model = network(num_classes=101, score_threshold=1e-5, detections_per_image=20).eval()
    with torch.no_grad():
        (everything,) = model.detect(images(1))
        monkeypatch.setattr("modules.networks.detectron2_heads.MOST_CANDIDATES", 500)
        (limited,) = model.detect(images(1))
    assert limited[0]["scores"].shape == (20,)
    torch.testing.assert_close(limited[0]["scores"], everything[0]["scores"])
    assert torch.equal(limited[0]["labels"], everything[0]["labels"])


@needs_detectron2
def test_no_detection_is_an_empty_result() -> None:
    model = network(score_threshold=0.999).eval()
    with torch.no_grad():
        (found,) = model.detect(images(1))
    assert found[0]["masks"].shape == (0, 64, 80)
    assert found[0]["masks"].dtype == torch.bool


@needs_detectron2
def test_federated_loss_draws_classes_by_their_counts() -> None:
    counts = torch.ones(201)
    counts[101:] = 1e8  # roots: 1 against 10,000
    model = network(num_classes=201)
    model.set_class_counts(counts)
    model(images(1), [target((5, 5, 40, 40))])["loss_class"].backward()
    drawn = model.roi_heads.box_predictor.cls_score.weight.grad.abs().sum(dim=1).nonzero()[:, 0]
    assert 40 <= len(drawn) <= 50
    frequent = (drawn >= 100).sum()
    assert frequent >= len(drawn) - 3  # class 0 of the target, and a rare one with luck
    with pytest.raises(ValueError, match="class counts"):
        model.set_class_counts(counts[:-1])
    network(class_loss="softmax").set_class_counts(torch.ones(7))


@needs_detectron2
@pytest.mark.parametrize(("backbone", "head_norm"), [("resnet18", "SyncBN"), ("swin_test", "GN")])
def test_a_few_steps_reduce_the_loss(shapes_root: Path, backbone: str, head_norm: str) -> None:
    data = PartDetectionDataModule(shapes_root / "imagenet", shapes_root / "pinpp")
    data.setup("fit")
    assert data.val_set is not None
    batch = collate([data.val_set[0, index] for index in range(2)])
    pictures = [image.float() / 255 for image in batch["image"]]
    model = network(
        len(data.vocabulary.parts) + 1, backbone=backbone, head_norm=head_norm, fpn_channels=32
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    values = []
    for _ in range(25):
        loss = sum(model(pictures, batch["target"]).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert sum(values[-3:]) < 0.75 * sum(values[:3])


@needs_detectron2
def test_gradient_checkpointing_and_mixed_precision_give_the_same_losses() -> None:
    truth = [target((5, 5, 40, 40)), target((30, 20, 70, 60))]

    def losses(model: Any) -> dict[str, Tensor]:
        torch.manual_seed(3)
        return model(images(), truth)

    plain, checkpointed = network(), network(grad_checkpointing=True)
    expected, found = losses(plain), losses(checkpointed)
    torch.testing.assert_close(found, expected)
    for values in (expected, found):
        sum(values.values()).backward()
    for one, other in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = {name: loss.item() for name, loss in losses(plain).items()}
        with torch.no_grad():
            assert len(plain.eval().detect(images(), [ALLOWED])[0]) == 2
    for name, value in mixed.items():
        assert value == pytest.approx(expected[name].item(), rel=0.1), name
    with pytest.raises(ValueError, match="Swin"):
        network(backbone="resnet18", grad_checkpointing=True)


@needs_detectron2
@pytest.mark.parametrize(
    ("backbone", "blocks", "deepest"),
    [("swin_test", 4, "layers.3.blocks.0"), ("resnet18", 8, "res5.1")],
)
def test_layers_are_counted_from_the_stem(backbone: str, blocks: int, deepest: str) -> None:
    model = network(backbone=backbone)
    layers = model.layer_ids()
    assert set(layers.values()) == set(range(blocks + 1))
    assert layers.keys() <= {name for name, _ in model.named_parameters()}
    for name, layer in layers.items():
        assert (layer == 0) == (".stem." in name or ".patch_embed." in name)
        assert (layer == blocks) == (f".{deepest}." in name)


@needs_detectron2
def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="swin_base"):
        network(backbone="no_such_network")
    with pytest.raises(ValueError, match="SyncBN"):
        network(head_norm="magic")
