"""The sentences that the report opens with, each derived from what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.evaluation.decisions import FILE as DECISIONS
from pipeline.published.paper import IMAGE_SIZE, NUM_IMAGES
from pipeline.report.reading.comparisons import ENOUGH, Comparison, Difference, Subject
from pipeline.report.reading.evaluations import Evaluation
from pipeline.report.reading.facts import LabelFacts
from pipeline.report.reading.runs import Runs, data_arguments, evaluate_command
from pipeline.report.reading.segmenter import segmenter_rows

BASELINE = "stage3_vanilla"  # name of the run that the parts are compared with
TRAIN_BASELINE = f'make stage3-mpm ARGS="--model.init_args.part_loss_weight=0" NAME={BASELINE}'
TO = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Statement:
    """One finding: what it is about, as a word or two, and a sentence or two."""

    lead: str
    text: str


def statements(runs: Runs, comparison: Comparison | None) -> list[Statement]:
    """What the runs support: robustness, part labels, and what the figures do not show.

    Args:
        runs: What the runs folder holds.
        comparison: What `find_comparison` gave.
    """
    found = [_robustness(comparison, runs.folder)] if comparison else []
    found += _parts(runs)
    if comparison:
        found.append(Statement("Not shown", _limits(comparison)))
    elif runs.facts:
        found.append(Statement("Robustness", f"No model was attacked yet: {_next(runs)}."))
    else:
        text = (
            "Nothing has run in this folder. make demo runs everything on rendered images; on "
            f"your own data begin with {_next(runs)}."
        )
        found.append(Statement("Nothing to report", text))
    return found


def _next(runs: Runs) -> str:
    """The first command that has not run yet."""
    wanted = [line.partition(": not run, ")[2] for line in (*runs.missing, *runs.not_evaluated)]
    return next(iter(wanted), "make evaluate")


def _robustness(found: Comparison, runs: Path) -> Statement:
    name, threat = found.model.name, found.threat
    if threat is None:
        return Statement("Robustness", f"{name} was measured without an attack alone.")
    if found.baseline is None:
        alone = f"Under {threat.title}, {_share(found.model.evaluation, threat.title)}"
        clean = _share(found.model.evaluation, "clean")
        without = f"; without an attack, {clean}" if clean else ""
        commands = f"{TRAIN_BASELINE}, then {evaluate_command(runs, BASELINE)}"
        lacking = f"What the parts give cannot be said without a baseline: {commands}."
        if not found.model.part_loss_weight:
            lacking = "No evaluated model is known to be trained with parts: nothing is compared."
        return Statement("Robustness", f"{name}: {_lower(alone)}{without}. {lacking}")
    other, gap = found.baseline.name, found.attacked
    if gap is None:
        text = (
            f"{name} and its baseline {other} were not attacked alike on common images: evaluate "
            "both with the same settings."
        )
        return Statement("Robustness", text)
    text = (
        f"Under {threat.title}, {name} (trained with parts) keeps {gap.first:.1f} % of "
        f"{gap.images:,} images right, its baseline {other} (without) {gap.second:.1f} %: "
        f"{_points(gap)}"
    )
    text += f"{_pairing(gap)}. {_verdict(gap, name)}"
    further = {f"Under {title}": other for title, other in found.others.items()}
    further |= {"Without an attack": found.clean} if found.clean else {}
    for when, plain in further.items():
        state = "decided" if plain.is_decided else "undecided"
        text += (
            f" {when}: {plain.first:.1f} % against {plain.second:.1f} % of "
            f"{plain.images:,} images, {_points(plain)}, {state}."
        )
    return Statement(f"Robustness: {'decided' if gap.is_decided else 'undecided'}", text)


def _points(gap: Difference) -> str:
    low, high = _signed(gap.low), _signed(gap.high)
    return f"{_signed(gap.gap)} percentage points (95 % interval {low} to {high})"


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", MINUS)


def _pairing(gap: Difference) -> str:
    return ", paired by image" if gap.paired else ", from totals, not paired"


def _verdict(gap: Difference, name: str) -> str:
    if not gap.is_decided:
        return "The interval holds 0: these images do not tell which of the two is more robust."
    which = "more" if gap.gap > 0 else "less"
    return f"The interval leaves out 0: on such images {name} is {which} robust."


def _share(one: Evaluation, title: str) -> str:
    cell = one.threat(title)
    if cell.value is None:
        return ""
    ends = "" if cell.low is None or cell.high is None else f" ({cell.low:.1f}{TO}{cell.high:.1f})"
    return f"{cell.value:.1f} %{ends} of {cell.n or 0:,} images are right"


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]


def _parts(runs: Runs) -> list[Statement]:
    """What the segmenter and the category filter give, as far as either was measured."""
    sentences = [
        *_segmenter(runs.segmenter_metrics, runs.measured_on_val),
        *(_labels(runs.labels) if runs.labels else ()),
    ]
    return [Statement("Part labels", " ".join(sentences))] if sentences else []


def _segmenter(metrics: Mapping[str, float], on_val: bool) -> list[str]:
    values = {row.filter: row.values["AP"] for row in segmenter_rows(metrics)}
    plain, filtered = values.get(False), values.get(True)
    images = "annotated val images" if on_val else "annotated images held out from its training"
    known = [f"{ap:.1f} %" for ap in (plain, filtered) if ap is not None]
    if not known:
        return []
    said = f"The segmenter reaches {known[0]} mask AP on {images}"
    if len(known) == 2:
        return [f"{said}, {known[1]} with the category filter."]
    return [f"{said}, {'with' if plain is None else 'without'} the category filter."]


def _labels(labels: LabelFacts) -> list[str]:
    if labels.quality is None:
        return [f"{labels.labelled:,} of {labels.images:,} train images carry at least one part."]
    miou = f"{100 * labels.quality.miou:.1f} %"
    return [f"The pseudo labels have a mean IoU of {miou} with truth that was kept aside."]


def _limits(found: Comparison) -> str:
    """What a reader may not conclude, as far as it can be read off the runs."""
    subjects = [found.model, *([found.baseline] if found.baseline else [])]
    seeds = dict.fromkeys(one.seed for one in subjects if one.seed is not None)
    seed = f" (seed {' and '.join(map(str, seeds))})" if seeds else ""
    trainings = "one training of each" if found.baseline else "one training"
    lines = [f"{trainings}{seed}, so no interval holds what another seed would change"]
    if found.other_settings:
        lines.append(f"the two trainings differ in {_listed(found.other_settings)}, too")
    size = data_arguments(found.model.evaluation.folder).get("image_size")
    if size and size != IMAGE_SIZE:
        lines.append(f"images of {size} px, where the published rows have {IMAGE_SIZE}")
    attacked = found.attacked.images if found.attacked else None
    attacked = attacked or (found.threat.cell.n if found.threat else None)
    if attacked and attacked < NUM_IMAGES:
        lines.append(f"{attacked:,} images attacked, where the published rows have {NUM_IMAGES:,}")
    lines += [*_weaker_attack(found), *_stopped(found, subjects)]
    if any(one.evaluation.warnings for one in subjects):
        lines.append("the evaluation has warnings, see Robustness")
    text = "; ".join(lines)
    return f"{text[0].upper()}{text[1:]}."


def _weaker_attack(found: Comparison) -> list[str]:
    threat = found.threat
    if threat is None or threat.attack == "AutoAttack":
        return []
    whole = [one for one in found.model.evaluation.threats if one.attack == "AutoAttack"]
    images = max((one.cell.n or 0 for one in whole), default=0)
    ran = f"ran on {images} images alone, fewer than {ENOUGH}" if images else "did not run"
    return [f"{threat.attack} is weaker than AutoAttack, which {ran}"]


def _stopped(found: Comparison, subjects: Sequence[Subject]) -> list[str]:
    """Which of the figures above are of attacks that ended as soon as a comparison was decided."""
    shown = [*([found.threat.title] if found.threat else []), *found.others, "clean"]
    return [
        f"{threat.title} on {one.name} ended when a comparison with {threat.stopped_by} was "
        f"decided: its intervals are too tight and too far from 0, those in {DECISIONS} of "
        f"{one.name} hold at any time"
        for one in subjects
        for threat in one.evaluation.threats
        if threat.stopped_by and threat.title in shown
    ]


def _listed(names: Sequence[str], most: int = 4) -> str:
    rest = len(names) - most
    shown = [*names[:most], *([f"{rest} more settings"] if rest > 0 else [])]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
