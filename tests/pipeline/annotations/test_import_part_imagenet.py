import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations, read_split
from datamodules.files.errors import UserError
from datamodules.masks.part_labels import decode_masks
from pipeline.annotations.check_data import check_data
from pipeline.annotations.import_part_imagenet import import_part_imagenet, part_imagenet
from pipeline.cli import main as run_stage
from tests.conftest import SHARED
from tests.pipeline.commands import stage_args

GROUPS = {"fish": "Animal", "car": "Thing", "tree": "Thing"}


def coco_of(shapes: Path, path: Path, objects: tuple[str, ...] = ("fish", "car", "tree")) -> Path:
    """PartShapes annotations as PartImageNet spells them: one file, ids from 0, flat names."""
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    ids: dict[str, int] = {}
    for name in objects:
        source = json.loads((shapes / "pinpp" / "json" / f"{name}.json").read_text())
        parts = {one["id"]: one["name"] for one in source["categories"]}
        first = len(content["images"])
        for image in source["images"]:
            file_name = image["file_name"].partition("/")[2]
            content["images"].append(
                image | {"id": first + image["id"] - 1, "file_name": file_name}
            )
        for one in source["annotations"]:
            category = f"{GROUPS[name]} {parts[one['category_id']].title()}"
            links = {
                "id": len(content["annotations"]),
                "image_id": first + one["image_id"] - 1,
                "category_id": ids.setdefault(category, len(ids)),
            }
            content["annotations"].append(one | links)
    content["categories"] = [
        {"id": i, "name": name, "supercategory": name.partition(" ")[0]} for name, i in ids.items()
    ]
    path.write_text(json.dumps(content))
    return path


def test_import_gives_the_annotations_back(shapes_root: Path, tmp_path: Path) -> None:
    source = coco_of(shapes_root, tmp_path / "train.json")
    summary = import_part_imagenet([source], tmp_path / "out", imagenet=shapes_root / "imagenet")
    assert summary["problems"] == []
    assert summary["super_categories"] == GROUPS
    found = check_data(tmp_path / "out" / "imagenet", tmp_path / "out" / "pinpp", workers=1)
    assert found.problems == []
    pairs = []
    for root in (shapes_root, tmp_path / "out"):
        vocabulary = PartVocabulary.from_pinpp(root / "pinpp", root / "imagenet")
        pairs.append((vocabulary, read_annotations(root / "pinpp", vocabulary)))
    (words, expected), (new_words, found) = pairs
    assert new_words.parts == tuple(
        sorted(f"{name.partition(':')[0]}:{name.partition(':')[2].title()}" for name in words.parts)
    )
    assert summary["parts"] == new_words.num_parts
    assert [image.key for image in found] == [image.key for image in expected]
    for one, other in zip(expected, found, strict=True):
        assert np.array_equal(decode_masks(one), decode_masks(other))


def test_stage_1_trains_on_imported_annotations(shapes_root: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "imagenet").symlink_to(shapes_root / "imagenet")
    import_part_imagenet([coco_of(shapes_root, tmp_path / "train.json")], tmp_path / "pin")
    (data / "pinpp").symlink_to(tmp_path / "pin" / "pinpp")
    run_stage(stage_args("stage1_segmenter", data, tmp_path / "runs"))
    run = tmp_path / "runs" / "stage1_segmenter"
    assert json.loads((run / "manifest.json").read_text())["state"] == "complete"
    assert "fish:Fin" in json.loads((run / "vocabulary.json").read_text())["parts"]


def test_super_categories_become_a_data_set_that_stage_1_trains_on(
    shapes_root: Path, tmp_path: Path
) -> None:
    source = coco_of(shapes_root, tmp_path / "train.json")
    out = tmp_path / "super"
    import_part_imagenet([source], out, naming="super", imagenet=shapes_root / "imagenet")
    assert sorted(path.name for path in (out / "imagenet" / "train").iterdir()) == [
        "Animal",
        "Thing",
    ]
    assert len(list((out / "imagenet" / "train" / "Thing").iterdir())) == 24  # annotated or not
    assert len(list((out / "imagenet" / "val" / "Thing").iterdir())) == 8
    vocabulary = PartVocabulary.from_pinpp(out / "pinpp", out / "imagenet")
    assert vocabulary.objects == ("Animal", "Thing")
    assert read_annotations(out / "pinpp", vocabulary, out / "imagenet" / "train")
    run_stage(stage_args("stage1_segmenter", out, tmp_path / "runs"))
    saved = json.loads((tmp_path / "runs/stage1_segmenter/vocabulary.json").read_text())
    assert saved["objects"] == ["Animal", "Thing"]


def test_files_for_val_become_a_split_file(shapes_root: Path, tmp_path: Path) -> None:
    train = coco_of(shapes_root, tmp_path / "train.json", ("fish", "car"))
    val = coco_of(shapes_root, tmp_path / "val.json", ("tree",))
    import_part_imagenet([train], tmp_path / "out", val=[val])
    split = json.loads((tmp_path / "out" / "split.json").read_text())
    assert {key.partition("/")[0] for key in split["val"]} == {"tree"}
    assert {key.partition("/")[0] for key in split["train"]} == {"fish", "car"}
    vocabulary = PartVocabulary.from_pinpp(tmp_path / "out" / "pinpp", shapes_root / "imagenet")
    annotations = read_annotations(tmp_path / "out" / "pinpp", vocabulary)
    parts = read_split(tmp_path / "out" / "split.json", annotations)
    assert [len(part) for part in parts] == [16, 8]


def test_images_that_are_not_there_are_left_out_and_named(
    shapes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = coco_of(shapes_root, tmp_path / "train.json")
    content = json.loads(source.read_text())
    content["images"][0]["file_name"] = "fish_gone.jpg"
    source.write_text(json.dumps(content))
    part_imagenet(source, tmp_path / "out", imagenet=shapes_root / "imagenet")
    printed = capsys.readouterr().out
    assert "3 objects" in printed
    assert "1 problems" in printed
    assert "fish/fish_gone.jpg: no such image in" in printed
    with pytest.raises(UserError, match="is not an empty folder"):
        part_imagenet([source], tmp_path / "out")


def test_nothing_is_left_behind_when_the_import_fails(shapes_root: Path, tmp_path: Path) -> None:
    source = coco_of(shapes_root, tmp_path / "train.json")
    content = json.loads(source.read_text())
    for one in content["annotations"]:
        one["segmentation"] = []
    source.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"nothing to import; the first problem: .*annotation 0"):
        import_part_imagenet([source], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.json"]


def test_real_wnids_get_the_super_categories_of_part_imagenet(tmp_path: Path) -> None:
    images, table = SHARED / "tiny_imagenet_pin", SHARED / "imagenet_meta" / "imagenet1k.csv"
    if not images.is_dir() or not table.is_file():
        pytest.skip(f"{images} or {table} is not there")
    with table.open() as file:
        rows = [row for row in csv.DictReader(file) if row["pin_supercategory"]]
    annotated = [row for row in rows if (images / "train" / row["wnid"]).is_dir()]
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    ids: dict[tuple[str, str], int] = {}
    for row in rows:
        for part in row["pin_parts"].split():
            ids.setdefault((row["pin_supercategory"], part), len(ids))
    assert len(ids) == 40
    for row in annotated:
        path = min((images / "train" / row["wnid"]).iterdir())
        number = len(content["images"])
        content["images"].append({"id": number, "file_name": path.name, "width": 64, "height": 64})
        for (group, _), category in ids.items():
            if group == row["pin_supercategory"]:
                content["annotations"].append(
                    {
                        "id": len(content["annotations"]),
                        "image_id": number,
                        "category_id": category,
                        "segmentation": [[4.0, 4.0, 40.0, 4.0, 40.0, 40.0]],
                    }
                )
    content["categories"] = [
        {"id": i, "name": f"{group} {part.replace('_', ' ')}", "supercategory": group}
        for (group, part), i in ids.items()
    ]
    (tmp_path / "test.json").write_text(json.dumps(content))
    groups = {row["pin_supercategory"] for row in annotated}
    for naming, objects in (("object", len(annotated)), ("super", len(groups))):
        out = tmp_path / naming
        summary = import_part_imagenet(
            [tmp_path / "test.json"],
            out,
            naming=naming,
            imagenet=images,  # type: ignore[arg-type]
        )
        assert summary["problems"] == []
        assert summary["super_categories"] == {
            row["wnid"]: row["pin_supercategory"] for row in annotated
        }
        assert summary["objects"] == objects
