"""Everything that is run, in this order: what must not be missing comes first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.gpu_check.checks import attack, detector, folded_norms, part_loss, store
from benchmarks.gpu_check.checks import training_step as checked_step
from benchmarks.gpu_check.ratios import autoattack, data_path, segmenter, utilisation, whole_run
from benchmarks.gpu_check.ratios import part_loss as loss_ratio
from benchmarks.gpu_check.ratios import training_step as step
from benchmarks.gpu_check.results import Result
from benchmarks.gpu_check.scale import Setting


@dataclass(frozen=True)
class Entry:
    """One file's work.

    Attributes:
        name: on the command line.
        run: gives its results.
        seconds: that it is assumed to take on a GPU; it is skipped where fewer are left.
        exact: whether float32 must be float32, without TF32.
        compiles: whether it goes through `torch.compile`, minutes of work on a CPU.
    """

    name: str
    run: Callable[[Setting], Sequence[Result]]
    seconds: float
    exact: bool = False
    compiles: bool = False


ENTRIES = (
    Entry("check_part_loss", part_loss.check, 5, exact=True),
    Entry("check_attack", attack.check, 5, exact=True),
    Entry("check_folded_norms", folded_norms.check, 5, exact=True),
    Entry("check_step", checked_step.plain, 5, exact=True),
    Entry("check_detector", detector.check, 15, exact=True),
    Entry("check_store", store.check, 5, exact=True),
    Entry("check_compiled_step", checked_step.compiled, 40, exact=True, compiles=True),
    Entry("part_loss", loss_ratio.measure, 15),
    Entry("step", step.plain_smallest, 10),
    Entry("step_large", step.plain_largest, 15),
    Entry("utilisation", utilisation.measure, 10),
    Entry("data_path", data_path.measure, 15),
    Entry("whole_run", whole_run.measure, 10),
    Entry("segmenter", segmenter.measure, 15),
    Entry("autoattack", autoattack.measure, 40),
    Entry("compiled_step", step.compiled_smallest, 50, compiles=True),
    Entry("compiled_step_large", step.compiled_largest, 50, compiles=True),
    Entry("cuda_graphs", step.cuda_graphs, 60, compiles=True),
)
