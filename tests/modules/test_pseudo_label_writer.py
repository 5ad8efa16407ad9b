from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from datamodules.files.errors import UserError
from modules.networks.flip_augmentation import mirror
from modules.pseudo_label_writer import PseudoLabelWriter, encode_record
from tests.modules.tiny_segmenter import save_tiny_segmenter

OBJECT_PARTS = torch.tensor([[True, True, True, False], [True, False, False, True]])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of a stage 1 that has not learned anything yet."""
    folder = tmp_path_factory.mktemp("stage1")
    save_tiny_segmenter(
        folder,
        OBJECT_PARTS,
        more_entries={"_class_path": "PartSegmenter"},  # as LightningCLI's checkpoints have it
        rpn_proposals=20,
        detections_per_image=3,
        score_threshold=0.9,
    )
    return folder


def writer(run: Path, **settings: object) -> PseudoLabelWriter:
    return PseudoLabelWriter(run, OBJECT_PARTS, **settings).eval()


def label(model: PseudoLabelWriter, batch: dict[str, object]) -> list[dict[str, object]]:
    return [encode_record(record) for record in model.predict_step(batch, 0)]


@pytest.fixture
def batch() -> dict[str, object]:
    """Three images of different size, the second of which could not be read."""
    generator = torch.Generator().manual_seed(1)
    sizes = [(40, 56), (0, 0), (70, 50)]
    return {
        "image": [torch.randint(256, (3, *s), generator=generator).byte() for s in sizes],
        "label": torch.tensor([0, 0, 1]),
        "key": ["ant/0.jpg", "ant/1.jpg", "bee/0.jpg"],
        "error": ["", "cannot be decoded", ""],
        "shard": 0,
    }


@torch.no_grad()
def test_records_are_the_segmenter_s_detections(run: Path, batch: dict[str, object]) -> None:
    model = writer(run, score_threshold=0.05)
    records = label(model, batch)
    images = [batch["image"][0].float() / 255, batch["image"][2].float() / 255]
    detections = model.network.predict(images, torch.tensor([0, 1]))
    assert [r["key"] for r in records] == batch["key"]
    for record, image, found in zip([records[0], records[2]], images, detections, strict=True):
        height, width = image.shape[1:]
        assert (record["height"], record["width"], record["error"]) == (height, width, "")
        kept = [i for i in range(len(found["masks"])) if found["masks"][i].any()]
        assert len(record["instances"]) == len(kept) > 0
        for instance, i in zip(record["instances"], kept, strict=True):
            mask = coco_mask.decode({"size": [height, width], "counts": instance["rle"]})
            assert np.array_equal(mask, found["masks"][i].numpy())
            assert instance["part"] == int(found["labels"][i])
            assert instance["score"] == pytest.approx(float(found["scores"][i]))
            x1, y1, x2, y2 = instance["box"]
            assert 0 <= x1 < x2 <= width
            assert 0 <= y1 < y2 <= height


@torch.no_grad()
def test_unreadable_image_gives_an_error_record(run: Path, batch: dict[str, object]) -> None:
    expected = {"key": "ant/1.jpg", "label": 0, "height": 0, "width": 0, "instances": []}
    model = writer(run)
    assert label(model, batch)[1] == expected | {"error": "cannot be decoded"}
    lone = {name: [value[1]] for name, value in batch.items() if isinstance(value, list)}
    lone |= {"label": batch["label"][1:2], "shard": 0}
    assert label(model, lone)[0]["instances"] == []


@torch.no_grad()
def test_image_that_the_segmenter_cannot_take_is_an_error_row(
    run: Path, batch: dict[str, object]
) -> None:
    model = writer(run, score_threshold=0.05)
    thin = batch | {"image": [batch["image"][0], torch.zeros(3, 1, 9000).byte(), batch["image"][2]]}
    thin["error"] = ["", "", ""]
    records = label(model, thin)
    assert "segmenter cannot take it, 1x9000 (height x width): " in records[1]["error"]
    assert (records[0]["error"], records[2]["error"], records[1]["instances"]) == ("", "", [])
    assert records[0]["instances"]
    assert records[2]["instances"]


DEVICE_FAILURES = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.\nMore."),
    RuntimeError("CUDA error: an illegal memory access was encountered\nMore."),
]
if hasattr(torch, "AcceleratorError"):
    DEVICE_FAILURES.append(torch.AcceleratorError("XPU error: device lost"))


@pytest.mark.parametrize("failure", DEVICE_FAILURES, ids=repr)
def test_a_failing_device_ends_the_run(
    failure: Exception, run: Path, batch: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise failure

    model = writer(run)
    monkeypatch.setattr(model.network, "predict", fail)
    reason = str(failure).splitlines()[0]
    with pytest.raises(UserError, match=rf"ant/0\.jpg, 40x56 .*: {reason}; free, mend") as refusal:
        model.predict_step(batch, 0)
    assert "\n" not in str(refusal.value)


@torch.no_grad()
def test_a_batch_that_is_too_large_for_the_device_is_labelled_one_by_one(
    run: Path, batch: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = writer(run, score_threshold=0.05)
    predict = model.network.predict

    def predict_one(images: list[torch.Tensor], labels: torch.Tensor) -> object:
        if len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return predict(images, labels)

    monkeypatch.setattr(model.network, "predict", predict_one)
    records = label(model, batch)
    assert [bool(record["instances"]) for record in records] == [True, False, True]
    assert [record["error"] for record in records] == batch["error"]


@torch.no_grad()
def test_category_filter_keeps_to_the_object_s_parts(run: Path, batch: dict[str, object]) -> None:
    def parts(category_filter: bool) -> list[set[int]]:
        records = label(writer(run, category_filter=category_filter), batch)
        return [{instance["part"] for instance in r["instances"]} for r in records]

    own = [{1, 2}, set(), {3}]
    filtered, plain = parts(category_filter=True), parts(category_filter=False)
    assert all(found <= allowed for found, allowed in zip(filtered, own, strict=True))
    assert any(found - allowed for found, allowed in zip(plain, own, strict=True))


@torch.no_grad()
def test_settings_reach_the_segmenter(run: Path, batch: dict[str, object]) -> None:
    assert len(label(writer(run, max_instances=2), batch)[0]["instances"]) <= 2
    assert label(writer(run, score_threshold=0.999), batch)[0]["instances"] == []
    counts = [len(r["instances"]) for r in label(writer(run, detections_per_part=2), batch)]
    assert 0 < counts[0] <= 4  # the first object has two parts, the second one
    assert 0 < counts[2] <= 2


@torch.no_grad()
def test_flip_sees_the_image_and_its_mirror_alike(run: Path, batch: dict[str, object]) -> None:
    model = writer(run, flip_tta=True, max_instances=5)
    mirrored = batch | {"image": [image.flip(-1) for image in batch["image"]]}
    for one, other in zip(
        model.predict_step(batch, 0), model.predict_step(mirrored, 0), strict=True
    ):
        if one["detections"] is None:
            continue
        a, b = one["detections"], mirror(other["detections"], one["width"])
        assert 0 < len(a["scores"]) <= 5
        torch.testing.assert_close(a["scores"], b["scores"])
        torch.testing.assert_close(a["boxes"], b["boxes"], atol=1e-3, rtol=0)
        assert torch.equal(a["labels"], b["labels"])
        assert torch.equal(a["masks"], b["masks"])
    plain = writer(run, max_instances=5).predict_step(batch, 0)[0]["detections"]
    assert model.settings["flip_tta"]
    assert model.predict_step(batch, 0)[0]["detections"]["scores"][0] >= plain["scores"][0]


def test_checkpoint_file_is_taken_too(run: Path) -> None:
    file = run / "checkpoints/best.ckpt"
    from_file, from_folder = writer(file), writer(run)
    assert from_file.checkpoint == from_folder.checkpoint == file
    for a, b in zip(from_file.parameters(), from_folder.parameters(), strict=True):
        assert torch.equal(a, b)


def test_prefixes_of_the_checkpoint_are_undone(run: Path, tmp_path: Path) -> None:
    content = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    state = content["state_dict"]
    content["state_dict"] = {f"module._orig_mod.{name}": value for name, value in state.items()}
    torch.save(content, tmp_path / "compiled.ckpt")
    for name, value in writer(tmp_path / "compiled.ckpt").network.state_dict().items():
        assert value.equal(state[name])
    content["state_dict"] = {name.replace("network", "detector"): v for name, v in state.items()}
    torch.save(content, tmp_path / "renamed.ckpt")
    with pytest.raises(ValueError, match=r"renamed.ckpt names its tensors otherwise than the segm"):
        writer(tmp_path / "renamed.ckpt")
    content["state_dict"] = dict(list(state.items())[1:])
    torch.save(content, tmp_path / "cut.ckpt")
    with pytest.raises(ValueError, match=r"cut.ckpt does not fit PartSegmenter; missing: netw"):
        writer(tmp_path / "cut.ckpt")


def test_refusals_are_one_line_with_the_mend(run: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.*run make stage1-segmenter first"):
        writer(tmp_path / "nowhere")
    more_parts = torch.ones(2, 9, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"best.ckpt is a checkpoint of another vocabulary"):
        PseudoLabelWriter(run, more_parts)
    damaged = tmp_path / "damaged.ckpt"
    damaged.write_bytes((run / "checkpoints/best.ckpt").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"damaged.ckpt is not a segmenter checkpoint") as refusal:
        writer(damaged)
    assert "\n" not in str(refusal.value)
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": {}, "hyper_parameters": {"part_loss_weight": 1.0}}, foreign)
    with pytest.raises(ValueError, match=r"foreign.ckpt is not a segmenter checkpoint.*detector"):
        writer(foreign)
    with pytest.raises(ValueError, match="object_parts is needed"):
        PseudoLabelWriter(run)
    assert writer(run, rpn_proposals=7).network.network.rpn.post_nms_top_n() == 7
    for name, value in (
        ("score_threshold", 1.5),
        ("max_instances", 0),
        ("detections_per_part", 0),
        ("rpn_proposals", 0),
    ):
        with pytest.raises(ValueError, match=rf"{name} \({value}\) must be"):
            writer(run, **{name: value})
