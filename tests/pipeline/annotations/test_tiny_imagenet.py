import json
import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.files.errors import UserError
from datamodules.images.imagenet_folder import list_images, list_objects
from datamodules.part_shapes.part_shapes import render_part_shapes
from pipeline.annotations.tiny_imagenet import build_t_pinpp, main

VAL = 4  # Tiny-ImageNet val images of each category
TRAIN = 6


def _copy(source: Path, target: Path, *, low_pass: bool) -> None:
    """Central square to 64 pixels and a JPEG, by another library than the one under test."""
    pixels = torch.from_numpy(np.array(Image.open(source))).permute(2, 0, 1)[None].float()
    height, width = pixels.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = pixels[..., top : top + side, left : left + side]
    small = F.interpolate(square, (64, 64), mode="bilinear", antialias=low_pass)[0]
    target.parent.mkdir(parents=True, exist_ok=True)
    array = small.round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    Image.fromarray(array).save(target, quality=75)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """ImageNet of oblong pictures of 4 objects, Tiny-ImageNet of 3; origins of its val images."""
    root = tmp_path_factory.mktemp("sets")
    shapes = render_part_shapes(
        root,
        num_objects=4,
        train_per_object=24,
        annotated_per_object=12,
        val_per_object=3,
        size=160,
    )
    rng = np.random.default_rng(0)
    tiny = root / "tiny"
    names = list_objects(shapes / "imagenet")[:3]
    origins, lines = {}, []
    for number, (key, _) in enumerate(list_images(shapes / "imagenet" / "train")):
        path = shapes / "imagenet" / "train" / key
        with Image.open(path) as image:
            box = (20, 0, 140, 160) if number % 2 else (0, 20, 160, 140)
            image.crop(box).save(path, quality=95)
    for category in names:
        files = sorted((shapes / "imagenet" / "train" / category).iterdir())
        chosen = rng.permutation(len(files))[: VAL + TRAIN]
        for rank, index in enumerate(chosen.tolist()):
            source, low_pass = files[index], bool(rank % 2)
            if rank < VAL:
                name = f"val_{len(origins)}.JPEG"
                _copy(source, tiny / "val" / "images" / name, low_pass=low_pass)
                origins[f"{category}/{source.name}"] = name
                lines.append(f"{name}\t{category}\t0\t0\t63\t63\n")
            else:
                name = f"{category}_{rank - VAL}.JPEG"
                _copy(source, tiny / "train" / category / "images" / name, low_pass=low_pass)
    (tiny / "wnids.txt").write_text("\n".join(names))
    (tiny / "val" / "val_annotations.txt").write_text("".join(lines))
    return root, origins


def _build(root: Path, out: Path, train: Literal["all", "tiny"]) -> dict[str, object]:
    main(root / "tiny", out, root / "imagenet", root / "pinpp", train=train, workers=1)
    return json.loads((out / "report.json").read_text())


def test_every_val_image_is_left_out_and_no_other(
    sets: tuple[Path, dict[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, origins = sets
    report = _build(root, tmp_path / "out", "all")
    assert report["matched"] == report["tiny_val_images"] == 3 * VAL
    assert report["unmatched"] == []
    excluded = report["excluded"]
    assert isinstance(excluded, dict)
    assert {key: entry["why"].split()[-1] for key, entry in excluded.items()} == origins
    names = list_objects(root / "imagenet")[:3]
    keys = [key for key, _ in list_images(root / "imagenet" / "train")]
    before = {key for key in keys if key.split("/")[0] in names}
    after = {key for key, _ in list_images(tmp_path / "out/imagenet/train")}
    assert after == before - origins.keys()
    val = [key for key, _ in list_images(tmp_path / "out/imagenet/val")]
    assert val == [k for k, _ in list_images(root / "imagenet/val") if k.split("/")[0] in names]
    assert "12 of 12" in capsys.readouterr().out


def test_annotations_are_those_of_the_images_that_stay(
    sets: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    root, origins = sets
    out = tmp_path / "out"
    report = _build(root, out, "all")
    whole = PartVocabulary.from_pinpp(root / "pinpp", root / "imagenet")
    vocabulary = PartVocabulary.from_pinpp(out / "pinpp", out / "imagenet")
    rows = {r.key: len(r.instances) for r in read_annotations(root / "pinpp", whole)}
    kept = {
        r.key: len(r.instances)
        for r in read_annotations(out / "pinpp", vocabulary, out / "imagenet/train")
    }
    expected = {k: n for k, n in rows.items() if whole.objects.index(k.split("/")[0]) < 3}
    assert kept == {key: n for key, n in expected.items() if key not in origins}
    assert report["annotated_images_left_out"] == len(expected) - len(kept) > 0


def test_the_papers_set_has_the_origins_of_the_training_images_alone(
    sets: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    root, origins = sets
    report = build_t_pinpp(root / "imagenet", root / "tiny", tmp_path / "out")
    assert report["train"] == "tiny"
    after = {key for key, _ in list_images(tmp_path / "out/imagenet/train")}
    assert len(after) == 3 * TRAIN
    assert not after & origins.keys()


def test_training_images_without_an_origin_are_told(
    sets: tuple[Path, dict[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, _ = sets
    assert _build(root, tmp_path / "whole", "tiny")["train_unmatched"] == []
    assert "no origin" not in capsys.readouterr().out
    shutil.copytree(root / "imagenet", tmp_path / "imagenet")
    kept = list_images(tmp_path / "whole/imagenet/train")
    (tmp_path / "imagenet/train" / kept[0][0]).unlink()
    main(root / "tiny", tmp_path / "out", tmp_path / "imagenet", workers=1)
    report = json.loads((tmp_path / "out/report.json").read_text())
    (lost,) = report["train_unmatched"]
    assert lost.startswith(kept[0][0].split("/")[0])
    assert report["images"]["train"] == len(kept) - 1
    assert "1 Tiny-ImageNet train images have no origin" in capsys.readouterr().out


def test_a_duplicate_goes_with_its_original_and_a_stranger_is_reported(
    sets: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    root, origins = sets
    shutil.copytree(root / "imagenet", tmp_path / "imagenet")
    shutil.copytree(root / "tiny", tmp_path / "tiny")
    train = tmp_path / "imagenet" / "train"
    gone, doubled = sorted(origins)[:2]
    (train / gone).unlink()
    twin = f"{doubled.split('/')[0]}/zz.jpg"
    Image.open(train / doubled).save(train / twin, quality=85)
    folders = (tmp_path / "imagenet", tmp_path / "tiny", tmp_path / "out")
    with pytest.raises(ValueError, match=r"1 of 12 val images .* have no origin"):
        build_t_pinpp(*folders)
    assert not (tmp_path / "out").exists()
    report = build_t_pinpp(*folders, max_unmatched=0.1)
    assert [entry["tiny_val"].split("/")[1] for entry in report["unmatched"]] == [origins[gone]]
    assert report["excluded"].keys() == (origins.keys() - {gone}) | {twin}
    assert (
        "duplicate"
        in report["excluded"][max(twin, doubled)]["why"] + (report["excluded"][doubled]["why"])
    )


def test_a_cut_run_goes_on_with_what_it_matched(
    sets: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    root, _ = sets
    shutil.copytree(root / "imagenet", tmp_path / "imagenet")
    names = list_objects(tmp_path / "imagenet")[:3]
    broken = sorted((tmp_path / "imagenet/train" / names[2]).iterdir())[0]
    content = broken.read_bytes()
    broken.write_bytes(b"no image")
    folders = (tmp_path / "imagenet", root / "tiny", tmp_path / "out")
    with pytest.raises(ValueError, match=broken.name):
        build_t_pinpp(*folders)
    matches = tmp_path / ".out.partial" / "matches"
    first = matches / f"{names[0]}.json"
    assert {path.stem for path in matches.iterdir()} == set(names[:2])
    stamp = first.stat().st_mtime_ns
    broken.write_bytes(content)
    report = build_t_pinpp(*folders)
    assert report["matched"] == 12
    assert (tmp_path / "out" / "matches" / first.name).stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="exists"):
        build_t_pinpp(*folders)


def test_original_is_laid_out_as_imagenet(
    sets: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    root, origins = sets
    out = tmp_path / "out"
    main(root / "tiny", out, pinpp=root / "pinpp", original=True)
    val = {(path.parent.name, path.name) for path in (out / "imagenet" / "val").glob("*/*")}
    assert val == {(key.split("/")[0], name) for key, name in origins.items()}
    assert len(list_images(out / "imagenet" / "train")) == 3 * TRAIN
    assert Image.open(next((out / "imagenet" / "val").glob("*/*"))).size == (64, 64)
    vocabulary = PartVocabulary.from_pinpp(out / "pinpp", out / "imagenet")
    assert vocabulary.num_parts > 0
    assert read_annotations(out / "pinpp", vocabulary, out / "imagenet/train") == []
    full = _build(root, tmp_path / "full", "tiny")
    same = PartVocabulary.from_pinpp(tmp_path / "full/pinpp", tmp_path / "full/imagenet")
    assert full["categories"] == 3
    assert vocabulary.content_hash == same.content_hash


def test_wrong_inputs_are_named(sets: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    root, _ = sets
    with pytest.raises(UserError, match="--tiny must hold train/ and val/"):
        main(tmp_path, tmp_path / "out", original=True)
    shutil.copytree(root / "tiny", tmp_path / "tiny")
    (tmp_path / "tiny/val/val_annotations.txt").write_text("val_0.JPEG\tn00\t0\t0\t1\t1\n")
    with pytest.raises(UserError, match="line 1 names no category"):
        main(tmp_path / "tiny", tmp_path / "out", original=True)
    with pytest.raises(UserError, match="set --imagenet, or --original=true"):
        main(root / "tiny", tmp_path / "out")
