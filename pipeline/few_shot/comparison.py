"""Two models on the same episodes: paired differences with their intervals."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from datamodules.files.errors import MissingInputError, UserError
from pipeline.evaluation.intervals import mean_interval
from pipeline.few_shot.episode_scores import SCORE_SCHEMA, accuracies, settings_of
from pipeline.few_shot.summary import FewShotComparison, FewShotRow, FewShotSummary

EPISODES = "episodes.parquet"
AGAINST = "against"  # folder of a run that holds its comparisons, by the other's name


def read_scores(run: Path) -> pa.Table:
    """The accuracies of a run, rows as in `SCORE_SCHEMA`.

    Raises:
        MissingInputError: if there are none.
        UserError: if the file is damaged.
    """
    file = run / EPISODES
    try:
        table = pq.read_table(file)
    except FileNotFoundError:
        raise MissingInputError(f"{file} does not exist: run make few-shot first") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{file} is damaged ({error}): delete the run's summary.json, too, and run "
                        "make few-shot again") from None  # fmt: skip
    if not table.schema.equals(SCORE_SCHEMA):
        raise UserError(f"{file} holds no episodes of this version: run make few-shot again")
    return table


def require_same_episodes(against: Path, sha256: str) -> None:
    """Refuses a run of other episodes.

    Args:
        against: run folder.
        sha256: of the episodes that it must have, see `episodes_hash`.

    Raises:
        MissingInputError: if the folder holds no results.
        UserError: if they are of other episodes.
    """
    if not (against / FewShotSummary.file).is_file():
        raise MissingInputError(
            f"{against} holds no results of few-shot classification: run make few-shot with the "
            "other model first"
        )
    if FewShotSummary.read(against).drawn.sha256 != sha256:
        raise UserError(
            f"{against} was measured on other episodes: give both models the same images, classes, "
            "--way, --shots, --queries, --episodes and --seed"
        )


def compare_runs(run: Path, against: Path) -> FewShotComparison:
    """Accuracy of one model less that of the other, paired by episode.

    Args:
        run: run folder of the one.
        against: of the other, on the same episodes.

    Returns:
        A row for each setting that both have.

    Raises:
        MissingInputError: if one holds no results.
        UserError: if the episodes differ, or no setting is in both.
    """
    drawn = FewShotSummary.read(run).drawn
    require_same_episodes(against, drawn.sha256)
    ours, theirs = read_scores(run), read_scores(against)
    shared = [setting for setting in settings_of(ours) if setting in settings_of(theirs)]
    if not shared:
        raise UserError(f"{run} and {against} have no view and number of shots in common")
    rows = []
    for setting in shared:
        # one may have been stopped while it added episodes, which come after those of the summary
        first, second = (accuracies(one, setting)[: drawn.episodes] for one in (ours, theirs))
        differences = first - second
        mean, interval = mean_interval(differences)
        rows.append(FewShotRow(*setting, mean, list(interval), len(differences)))
    return FewShotComparison(run.resolve().name, against.resolve().name, rows)
