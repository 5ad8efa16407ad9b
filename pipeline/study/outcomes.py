"""The outcomes of all images of a study as one Parquet file, kept beside its page.

A study can be summed up again, and continued with further seeds elsewhere, from this file alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from datamodules.files.atomic_files import written_whole
from datamodules.files.errors import MissingInputError, UserError
from pipeline.study.commands import TestedOn
from pipeline.study.results import Result

SCHEMA = pa.schema(
    [
        ("row", pa.string()),
        ("title", pa.string()),
        ("recipe", pa.string()),  # hash of the configurations that made it
        ("seed", pa.int32()),
        ("fold", pa.int32()),
        ("parameters", pa.int64()),
        ("flops", pa.int64()),
        ("threat", pa.string()),
        ("key", pa.string()),
        ("right", pa.bool_()),
    ]
)


def write_outcomes(path: Path, results: Sequence[Result], recipes: Mapping[str, str]) -> None:
    """Writes the outcomes of complete runs, one line an image and threat.

    Args:
        path: Parquet file.
        results: of the study.
        recipes: hash of the configurations, by row.
    """
    lines = [
        {
            "row": result.row,
            "title": result.title,
            "recipe": recipes[result.row],
            "seed": result.seed,
            "fold": result.fold,
            "parameters": result.parameters,
            "flops": result.flops,
            "threat": threat,
            "key": key,
            "right": right,
        }
        for result in results
        for threat, outcomes in result.outcomes.items()
        for key, right in sorted(outcomes.items())
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial:
        pq.write_table(pa.Table.from_pylist(lines, SCHEMA), partial, compression="zstd")


def read_outcomes(
    path: Path,
    recipes: Mapping[str, str],
    tested: Mapping[int | None, TestedOn] | None = None,
) -> list[Result]:
    """The runs of some rows in a file that `write_outcomes` wrote.

    Args:
        path: Parquet file.
        recipes: hash of the configurations, by row that is wanted.
        tested: by fold, what the runs must have been tested on; None for whatever it was.

    Raises:
        MissingInputError: if there is no such file.
        UserError: if it is no such file, or a row was made by other configurations or tested on
            other images.
    """
    if not path.is_file():
        raise MissingInputError(f"{path} does not exist: give a study's Parquet file")
    try:
        lines = pq.read_table(path, schema=SCHEMA).to_pylist()
    except (pa.ArrowInvalid, KeyError) as error:
        raise UserError(f"{path} holds no outcomes of a study ({error})") from None
    found: dict[tuple[str, int, int | None], Result] = {}
    for line in lines:
        row = line["row"]
        if row not in recipes:
            continue
        if line["recipe"] != recipes[row]:
            raise UserError(
                f"{path}: {row} was made by other configurations than today's: leave it out of "
                "--more and run it again"
            )
        run = row, line["seed"], line["fold"]
        if run not in found:
            cost = line["parameters"], line["flops"]
            found[run] = Result(row, line["title"], *run[1:], {}, *cost)
        outcomes = found[run].outcomes
        outcomes.setdefault(line["threat"], {})[line["key"]] = line["right"]
    results = list(found.values())
    if tested is not None:
        _require_images(path, results, tested)
    return results


def _require_images(
    path: Path, results: Sequence[Result], tested: Mapping[int | None, TestedOn]
) -> None:
    for result in results:
        images, keys = tested.get(result.fold), result.outcomes.get("clean", {}).keys()
        if images is None or not keys <= images.keys or len(keys) != images.number:
            raise UserError(
                f"{path}: {result.row}, {result.name}, was tested on other images than those of "
                "this study: --more takes a study of the same --data, --folds and --test_images"
            )


def together(results: Sequence[Result], earlier: Sequence[Result]) -> list[Result]:
    """Runs of this study and of an earlier one; where both have a run, this one's counts."""
    done = {(r.row, r.seed, r.fold) for r in results if r.outcomes}
    kept = [r for r in earlier if (r.row, r.seed, r.fold) not in done]
    taken = {(r.row, r.seed, r.fold) for r in kept}
    return [r for r in results if (r.row, r.seed, r.fold) not in taken] + kept
