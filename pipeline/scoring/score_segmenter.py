"""Scores any segmenter's results, in COCO's result format, on human part annotations."""

from pathlib import Path

from datamodules.annotations.part_vocabulary import PartVocabulary
from datamodules.files.errors import UserError
from datamodules.files.json_files import write_json
from datamodules.labels.coco_results import ResultReader, result_files
from pipeline.label_report.truth import held_out
from pipeline.runs.metrics import FILE, Metrics
from pipeline.scoring.figures import SegmenterScores, score_results
from pipeline.scoring.table import print_scores
from pipeline.validation.segmenter_metrics import TABLE


def score_segmenter(
    results: Path,
    imagenet: Path,
    out: Path,
    *,
    pinpp: Path | None = None,
    truth: Path | None = None,
    split: Path | None = None,
    images: Path | None = None,
    ignore_categories: bool = False,
    min_score: float = 0.0,
) -> SegmenterScores:
    """Scores any segmenter's results, in COCO's result format, on human part annotations.

    Args:
        results: JSON file, or a folder with one per object.
        imagenet: folder with train/, which numbers the objects.
        out: folder to write metrics.json and per_category.json into.
        pinpp: annotations that define the parts; their held-out tenth is scored without truth.
        truth: folder with json/, scored whole.
        split: split file of pinpp, val is scored.
        images: COCO file (or folder with json/) that numbers images and categories of the results.
        ignore_categories: score masks alone, whatever their categories are.
        min_score: leave weaker masks out of composites; AP and best overlap count all.

    Raises:
        MissingInputError: if a file or folder is missing.
        UserError: if results and annotations do not fit each other, or `out` holds scores.
    """
    if (out / FILE).exists():
        raise UserError(f"{out / FILE} holds scores already: give another NAME=, or remove it")
    result_files(results)
    annotations = pinpp or truth
    if annotations is None:
        raise UserError("give annotations: PINPP_VAL= (--truth) or PINPP= (--pinpp)")
    vocabulary = PartVocabulary.from_pinpp(annotations, imagenet)
    annotated, name = held_out(vocabulary, pinpp, truth, split)
    sizes = {key: (image.height, image.width) for key, image in annotated.items()}
    labels = {key: image.label for key, image in annotated.items()}
    found = ResultReader(vocabulary, labels, sizes.get, images, ignore_categories).read(results)
    scores = score_results(
        list(annotated.values()),
        found.instances,
        vocabulary,
        named=found.named,
        min_score=min_score,
    )
    write_json(
        out / TABLE,
        {
            "results": str(results),
            "truth": name,
            "score_threshold": min_score,
            "left_out": found.left_out,
            "parts": scores.parts,
        },
    )
    vocabulary.save(out / "vocabulary.json")
    Metrics(scores.values).write(out)
    print_scores(scores.values, f"{results} on {name}")
    counts = {key: int(scores.values[key]) for key in ("results", "masks", "images")}
    print(f"{counts['results']} results, {counts['masks']} human masks, {counts['images']} images")
    if empty := int(scores.values["images_without_results"]):
        print(f"{empty} of the images have no result: they count as without detections")
    if found.left_out:
        print(f"{found.left_out} results are of images that are not annotated: left out")
    print(out / FILE)
    return scores
