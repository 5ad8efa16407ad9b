"""Export and import of labels, and stage 3 on what was imported."""

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.annotations.pinpp import read_annotations
from datamodules.files.errors import UserError
from datamodules.images.imagenet_folder import list_images
from datamodules.labels.label_set import read_labels
from datamodules.masks.part_labels import ImageParts
from datamodules.masks.part_masks import composite
from pipeline.cli import main
from pipeline.labelling.export_labels import export_labels
from pipeline.labelling.export_labels import main as export_main
from pipeline.labelling.import_labels import import_labels
from pipeline.labelling.import_labels import main as import_main
from pipeline.labelling.imported_shards import ShardImport, import_shard
from pipeline.labelling.shard_writer import write_shard
from pipeline.runs.manifest import Manifest, mark_complete, require_complete
from tests.pipeline.commands import stage_args


@pytest.fixture(scope="module")
def images(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The PartShapes images, one that is not annotated being damaged."""
    root = tmp_path_factory.mktemp("images") / "imagenet"
    shutil.copytree(shapes_root / "imagenet", root)
    key, _ = list_images(root / "train")[-1]
    (root / "train" / key).write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def truth(shapes_root: Path, images: Path) -> list[ImageParts]:
    """Labels of all train images, with scores, a row without instances and one with an error."""
    vocabulary = PartVocabulary.from_pinpp(shapes_root / "pinpp", images)
    rng = np.random.default_rng(0)
    found = {
        row.key: row
        for name in ("pinpp", "truth")
        for row in read_annotations(shapes_root / name, vocabulary)
    }
    rows = []
    for key, label in list_images(images / "train"):
        parts = tuple(
            replace(part, score=float(np.float32(rng.random()))) for part in found[key].instances
        )
        rows.append(replace(found[key], label=label, instances=parts))
    rows[5] = replace(rows[5], instances=())
    rows[-1] = ImageParts(rows[-1].key, rows[-1].label, 0, 0, error="damaged")
    return rows


@pytest.fixture(scope="module")
def run(
    shapes_root: Path,
    images: Path,
    truth: list[ImageParts],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A stage 2 run folder with shards that end in the middle of categories."""
    folder = tmp_path_factory.mktemp("runs") / "stage2_pseudolabels"
    vocabulary = PartVocabulary.from_pinpp(shapes_root / "pinpp", images)
    vocabulary.save(folder / "vocabulary.json")
    for number in range(0, len(truth), 7):
        write_shard(folder / "labels" / f"{number // 7:05d}.parquet", truth[number : number + 7])
    inputs = {"vocabulary": vocabulary.content_hash}
    Manifest(folder.name, inputs=inputs).write(folder)
    mark_complete(folder)
    return folder


def vocabulary_of(run: Path) -> PartVocabulary:
    return PartVocabulary.load(run / "vocabulary.json")


def test_coco_round_trip_is_exact(
    run: Path, images: Path, shapes_root: Path, truth: list[ImageParts], tmp_path: Path
) -> None:
    written = export_labels(run, tmp_path / "coco", "coco", workers=2)
    assert written == len(truth) - 1
    assert sorted(p.stem for p in (tmp_path / "coco/json").iterdir()) == sorted(
        vocabulary_of(run).objects
    )
    again = PartVocabulary.from_pinpp(tmp_path / "coco", images)
    assert again.content_hash == vocabulary_of(run).content_hash
    new = tmp_path / "stage2_imported"
    args = (tmp_path / "coco", new, "coco", images, shapes_root / "pinpp")
    assert import_labels(*args, shard_size=10) == len(truth)
    found = read_labels(new)
    assert found[:-1] == read_labels(run)[:-1]
    assert "cannot be decoded" in found[-1].error
    assert found[-1].key == truth[-1].key
    require_complete(new, "make it", vocabulary_of(run).content_hash)
    assert len(list((new / "labels").glob("*.parquet"))) == -(-len(truth) // 10)


def test_png_tree_is_what_the_authors_code_reads_and_comes_back(
    run: Path, images: Path, shapes_root: Path, truth: list[ImageParts], tmp_path: Path
) -> None:
    out, vocabulary = tmp_path / "png", vocabulary_of(run)
    export_labels(run, out, "png", imagenet=images, pinpp=shapes_root / "pinpp", min_score=0.5)
    human = {row.key: row for row in read_annotations(shapes_root / "pinpp", vocabulary)}
    expected = {}
    for row in truth[:-1]:
        strong = tuple(part for part in row.instances if part.score >= 0.5)
        chosen = human.get(row.key, replace(row, instances=strong))
        expected[row.key] = composite(chosen, vocabulary.inclusions)
    # the way of the authors' data set: image names of img/, names up to the dot, last path part
    seen = set()
    for folder in (out / "img").iterdir():
        lines = (out / "whether_pseudo" / f"{folder.name}.txt").read_text().splitlines()
        pseudo = {path.split("/")[-1]: int(flag) for path, flag in map(str.split, lines)}
        for image in folder.iterdir():
            key = f"{folder.name}/{image.name}"
            if key == truth[-1].key:
                continue
            with Image.open(out / "seg" / folder.name / f"{image.name.split('.')[0]}.png") as png:
                assert np.array_equal(np.asarray(png), expected[key])
            assert pseudo[image.name] == (key not in human)
            seen.add(key)
    assert seen == expected.keys()
    new = tmp_path / "imported"
    import_labels(out, new, "png", images, shapes_root / "pinpp", shard_size=10)
    for row in read_labels(new)[:-1]:
        assert np.array_equal(composite(row, vocabulary.inclusions), expected[row.key])


def test_stage_3_trains_on_imported_labels(
    run: Path, images: Path, shapes_root: Path, tmp_path: Path
) -> None:
    export_labels(run, tmp_path / "png", "png")
    data = tmp_path / "data"
    data.mkdir()
    (data / "imagenet").symlink_to(images)
    (data / "pinpp").symlink_to(shapes_root / "pinpp")
    runs = tmp_path / "runs"
    labels = runs / "stage2_pseudolabels"
    import_main("png", tmp_path / "png", labels, data / "imagenet", data / "pinpp", workers=1)
    cli = main(stage_args("stage3_mpm", data, runs, "--trainer.max_epochs=1"))
    assert cli is not None
    assert Manifest.read(runs / "stage3_mpm").is_complete
    assert cli.trainer.global_step > 0
    assert any(row["part_weight"] for row in map(cli.datamodule.train_set.__getitem__, [(0, 9)]))


def test_export_goes_on_and_refuses_other_labels(
    run: Path, tmp_path: Path, truth: list[ImageParts]
) -> None:
    out = tmp_path / "png"
    export_main(run, "png", out, workers=1)
    names = vocabulary_of(run).objects
    kept = out / "seg" / names[0]
    times = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    (out / "whether_pseudo" / f"{names[1]}.txt").unlink()  # as if it was cut before the end
    next((out / "seg" / names[1]).iterdir()).unlink()
    written = export_labels(run, out, "png")
    assert written == sum(row.key.startswith(f"{names[1]}/") for row in truth if not row.error)
    assert times == {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    assert len(list((out / "seg" / names[1]).iterdir())) == written
    with pytest.raises(ValueError, match=r"made another way \(min_score: 0.0 -> 0.5\)"):
        export_labels(run, out, "png", min_score=0.5)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").touch()
    with pytest.raises(ValueError, match=r"export\.json is missing"):
        export_labels(run, tmp_path / "full", "coco")


def test_import_goes_on_and_refuses_another_source(
    run: Path, images: Path, shapes_root: Path, tmp_path: Path
) -> None:
    export_labels(run, tmp_path / "coco", "coco")
    new = tmp_path / "new"
    args = (tmp_path / "coco", new, "coco", images, shapes_root / "pinpp")
    import_labels(*args, shard_size=10)
    (new / "labels" / "00001.parquet").unlink()
    assert import_labels(*args, shard_size=10) == 10
    assert len(read_labels(new)) == len(list_images(images / "train"))
    with pytest.raises(ValueError, match="made another way"):
        import_labels(*args, shard_size=11)


def test_an_image_that_the_system_cannot_read_is_no_damaged_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Image, "open", fail)
    images, out = (("ant/0.jpg", 0),), tmp_path / "0.parquet"
    task = ShardImport(out, "", images, tmp_path, tmp_path, tmp_path, "png", allow_missing=True)
    with pytest.raises(UserError, match=r"ant/0\.jpg cannot be read \(Input/output error\)"):
        import_shard(task)
    assert not out.exists()


def test_labels_that_do_not_fit_are_named(
    run: Path, images: Path, shapes_root: Path, truth: list[ImageParts], tmp_path: Path
) -> None:
    def refused(source: Path, layout: str, message: str, **options: bool) -> None:
        out = tmp_path / "out"
        with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
            import_labels(
                source,
                out,
                layout,  # type: ignore[arg-type]
                images,
                shapes_root / "pinpp",
                **options,  # type: ignore[arg-type]
            )
        assert "\n" not in str(error.value)
        shutil.rmtree(out, ignore_errors=True)

    coco, png, name = tmp_path / "coco", tmp_path / "png", vocabulary_of(run).objects[0]
    refused(coco, "coco", "holds no json")
    export_labels(run, coco, "coco")
    export_labels(run, png, "png")
    file = coco / "json" / f"{name}.json"
    good = json.loads(file.read_text())
    moved = good | {"images": [{**good["images"][0], "file_name": f"{name}/9.jpg"}]}
    moved["annotations"] = []
    file.write_text(json.dumps(moved))
    refused(coco, "coco", f"{name}.json lists {name}/9.jpg, but .* does not exist")
    file.write_text(json.dumps(good | {"images": good["images"][1:], "annotations": []}))
    refused(coco, "coco", f"no labels for {truth[0].key}: pass --allow_missing")
    size = {**good["images"][0], "height": 63}
    file.write_text(json.dumps(good | {"images": [size, *good["images"][1:]], "annotations": []}))
    refused(coco, "coco", f"{truth[0].key} are 63x64, .* is 64x64")
    file.unlink()
    refused(coco, "coco", f"{name}.json and 0 more are missing")
    args = (coco, tmp_path / "some", "coco", images, shapes_root / "pinpp")
    import_labels(*args, allow_missing=True)
    assert not read_labels(tmp_path / "some")[0].instances
    (coco / "json" / "zebra.json").write_text("{}")
    refused(coco, "coco", "zebra.json and 0 more have no image")
    other = next((png / "seg" / name).iterdir())
    Image.fromarray(np.full((64, 64), 999, np.uint16)).save(other)
    refused(png, "png", f"{other.name} has part id 999")
    Image.fromarray(np.zeros((3, 64), np.uint16)).save(other)
    refused(png, "png", "are 3x64, .* is 64x64")
    PartVocabulary((name,), (f"{name}:x",)).save(png / "vocabulary.json")
    refused(png, "png", r"vocabulary.json numbers 1 parts")


@pytest.mark.parametrize("allow_missing", [False, True])
@pytest.mark.parametrize("ending", ["png", "0002.jpg"])
def test_a_png_that_two_images_could_mean_is_refused(
    run: Path, images: Path, shapes_root: Path, tmp_path: Path, ending: str, allow_missing: bool
) -> None:
    export_labels(run, tmp_path / "png", "png")
    imagenet = shutil.copytree(images, tmp_path / "imagenet")
    key = list_images(images / "train")[3][0]
    twin = f"{key.split('.')[0]}.{ending}"
    shutil.copy(images / "train" / key, imagenet / "train" / twin)
    file = tmp_path / "png/seg" / f"{key.split('.')[0]}.png"
    args = (tmp_path / "png", tmp_path / "out", "png", imagenet, shapes_root / "pinpp")
    first, second = sorted((key, twin))
    message = f"{file} would be the label map of both {first} and {second}, as names count up to"
    with pytest.raises(UserError, match=message):
        import_labels(*args, allow_missing=allow_missing)
    assert not (tmp_path / "out").exists()
    if allow_missing:
        file.unlink()
        assert import_labels(*args, allow_missing=True) == len(list_images(images / "train")) + 1


def test_unfinished_run_is_not_exported(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    replace(Manifest.read(run), state="running").write(tmp_path / "run")
    with pytest.raises(ValueError, match="running, not complete"):
        export_labels(tmp_path / "run", tmp_path / "out", "coco")
    assert not (tmp_path / "out").exists()
