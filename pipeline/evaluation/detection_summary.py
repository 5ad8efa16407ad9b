"""Writes what a test of the downstream detector measured."""

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

from modules.downstream_detector import CLEAN, FIGURES, DownstreamDetector
from pipeline.evaluation.summaries import BoxPrecision, DetectionResults
from pipeline.published import TABLE_S5, PublishedDetection


class DetectionSummary(Callback):
    """Writes `summary.json` and prints the rows beside the published ones (Table S5).

    The file has, for `clean` and every attack, `AP` and `AP50` in [0, 1] (-1 without ground
    truth), and the number of images.
    """

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the file (rank 0 only, and not after a dry run)."""
        assert isinstance(pl_module, DownstreamDetector)
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        measured = pl_module.precisions
        precisions = {
            name: BoxPrecision(*(values[figure] for figure in FIGURES))
            for name, values in measured.items()
        }
        results = DetectionResults(precisions, int(measured[CLEAN]["images"]))
        results.write(Path(trainer.default_root_dir))
        Console().print(summary_table(measured))


def summary_table(measured: dict[str, dict[str, float]]) -> Table:
    """AP / AP50 in percent of a detector and of the published ones.

    Args:
        measured: `AP` and `AP50` in [0, 1] of `clean` and of every attack.
    """
    table = Table("AP / AP50 in %", *measured, title="Downstream detection")
    ours = (_cell(*(100 * values[figure] for figure in FIGURES)) for values in measured.values())
    table.add_row("this detector", *ours)
    for row in TABLE_S5:
        cells = (_published(row, name) for name in measured)
        table.add_row(f"{row.initialisation} (published, COCO)", *cells)
    return table


def _cell(ap: float, ap50: float) -> str:
    return f"{ap:.1f} / {ap50:.1f}" if ap >= 0 else "no ground truth"


def _published(row: PublishedDetection, name: str) -> str:
    known = {CLEAN: row.clean, "A_cls": row.classification, "A_reg": row.regression}
    return _cell(*known[name]) if name in known else ""
