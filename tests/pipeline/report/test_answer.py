from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamodules.files.errors import UserError
from datamodules.files.json_files import write_json
from datamodules.labels.pseudo_labels import to_table
from datamodules.masks.part_labels import ImageParts
from pipeline.evaluation.intervals import paired_difference, unpaired_difference
from pipeline.evaluation.summaries import RobustnessSummary, ThreatRow
from pipeline.labelling.quality import LabelQuality
from pipeline.report.answer import statements
from pipeline.report.reading.comparisons import Comparison, find_comparison, main_threat
from pipeline.report.reading.evaluations import read_evaluation
from pipeline.report.reading.runs import read_runs
from pipeline.runs.manifest import Manifest
from pipeline.runs.metrics import Metrics
from pipeline.runs.stages import MPM
from tests.pipeline.report.report_runs import summary_of

AA = {"attack": "AutoAttack", "version": "standard"}
SETTINGS = {"clean": {"attack": "Clean"}, "aa": AA, "pgd": {"attack": "PGD", "steps": 20}}


def write_training(folder: Path, weight: float, *, lr: float = 0.1, seed: int = 3) -> None:
    model = {"init_args": {"part_loss_weight": weight, "lr": lr}}
    config = {"seed_everything": seed, "model": model, "trainer": {"max_epochs": 2}}
    Manifest(folder.name, "complete", config).write(folder)


def write_evaluation(
    runs: Path, name: str, threats: dict[str, Sequence[bool]], size: int = 64, first: int = 0
) -> None:
    """Summary, settings and records: image `i` is `a/i.jpg` from the first number on."""
    folder = runs / "evaluate" / name
    rows = []
    for threat, robust in threats.items():
        norm = None if threat == "clean" else "linf"
        share = sum(robust) / len(robust)
        ends = (max(0, share - 0.1), min(1, share + 0.1))
        radius = 8 / 255 if threat.endswith("_8") else 4 / 255
        rows.append(ThreatRow(threat, norm, radius if norm else 0, share, ends, len(robust)))
        keys = [f"a/{first + place}.jpg" for place in range(len(robust))]
        file = folder / "records" / threat / "00000.parquet"
        file.parent.mkdir(parents=True)
        pq.write_table(pa.table({"key": keys, "robust": list(robust)}), file)
    summary_of(f"gone/{name}", rows).write(folder)
    write_json(folder / "records" / "settings.json", {"threats": SETTINGS})
    config = {"data": {"init_args": {"image_size": size}}}
    Manifest(name, "complete", config).write(folder)


def outcomes(both: int, first: int, second: int, neither: int) -> tuple[list[bool], list[bool]]:
    """Outcomes of two models, by how many images stand for both, one alone or none."""
    ours = [True] * (both + first) + [False] * (second + neither)
    theirs = [True] * both + [False] * first + [True] * second + [False] * neither
    return ours, theirs


def write_pair(runs: Path, *table: int) -> None:
    ours, theirs = outcomes(*table)
    for name, weight, robust in (("stage3_mpm", 1.0, ours), ("stage3_plain", 0.0, theirs)):
        write_training(runs / name, weight)
        write_evaluation(runs, name, {"clean": robust, "aa": robust})


def compared(runs: Path) -> Comparison:
    content = read_runs(runs)
    found = find_comparison(runs, content.evaluations)
    assert found is not None
    return found


def say(runs: Path) -> dict[str, str]:
    content = read_runs(runs)
    found = statements(content, find_comparison(runs, content.evaluations))
    return {one.lead: one.text for one in found}


def test_a_decided_difference(tmp_path: Path) -> None:
    write_pair(tmp_path, 80, 30, 10, 80)
    gap, (low, high) = paired_difference(80, 30, 10, 80)
    assert gap == pytest.approx(0.1)
    assert low > 0
    text = say(tmp_path)["Robustness: decided"]
    assert (
        "Under AutoAttack l∞ 4/255, stage3_mpm (trained with parts) keeps 55.0 % of 200 images "
        "right, its baseline stage3_plain (without) 45.0 %: +10.0 percentage points (95 % interval "
        f"{100 * low:+.1f} to {100 * high:+.1f}), paired by image."
    ) in text
    assert "on such images stage3_mpm is more robust" in text


def test_less_robust_is_said_as_such(tmp_path: Path) -> None:
    write_pair(tmp_path, 80, 10, 40, 70)
    text = say(tmp_path)["Robustness: decided"]
    assert "\N{MINUS SIGN}15.0 percentage points" in text
    assert "stage3_mpm is less robust" in text


def test_an_undecided_difference_is_called_so(tmp_path: Path) -> None:
    write_pair(tmp_path, 80, 22, 18, 80)
    found = say(tmp_path)
    assert "+2.0 percentage points" in found["Robustness: undecided"]
    assert "do not tell which of the two is more robust" in found["Robustness: undecided"]
    assert "Robustness: decided" not in found


def test_other_attacks_on_enough_images_are_told_too(tmp_path: Path) -> None:
    main, other = outcomes(80, 22, 18, 80), outcomes(80, 30, 10, 80)
    for place, (name, weight) in enumerate((("stage3_mpm", 1.0), ("stage3_plain", 0.0))):
        write_training(tmp_path / name, weight)
        write_evaluation(tmp_path, name, {"aa": main[place], "aa_8": other[place]})
    text = say(tmp_path)["Robustness: undecided"]
    assert "do not tell which of the two is more robust. Under AutoAttack l∞ 8/255: 55.0 %" in text
    assert text.endswith("decided.")
    assert "+10.0 percentage points" in text


def test_only_common_images_are_compared(tmp_path: Path) -> None:
    ours, theirs = outcomes(60, 20, 20, 60)
    for name, weight, robust, first in (("stage3_mpm", 1, ours, 0), ("b", 0, theirs, 40)):
        write_training(tmp_path / name, weight)
        write_evaluation(tmp_path, name, {"aa": robust}, first=first)
    gap = compared(tmp_path).attacked
    assert gap is not None
    assert (gap.images, gap.paired) == (120, True)
    assert gap.first == pytest.approx(100 * sum(ours[40:]) / 120)
    assert gap.second == pytest.approx(100 * sum(theirs[:120]) / 120)


def test_other_images_are_not_compared(tmp_path: Path) -> None:
    for name, weight, first in (("stage3_mpm", 1, 0), ("b", 0, 500)):
        write_training(tmp_path / name, weight)
        write_evaluation(tmp_path, name, {"aa": [True] * 100}, first=first)
    assert "not attacked alike on common images" in say(tmp_path)["Robustness"]


def test_without_records_the_totals_are_compared(tmp_path: Path) -> None:
    write_pair(tmp_path, 80, 30, 10, 80)
    (tmp_path / "evaluate/stage3_plain/records/aa/00000.parquet").unlink()
    gap = compared(tmp_path).attacked
    assert gap is not None
    _, (low, high) = unpaired_difference(110, 200, 90, 200)
    assert (gap.low, gap.high) == pytest.approx((100 * low, 100 * high))
    assert any("from totals, not paired" in text for text in say(tmp_path).values())


def test_a_damaged_record_is_one_line(tmp_path: Path) -> None:
    write_pair(tmp_path, 80, 30, 10, 80)
    (tmp_path / "evaluate/stage3_plain/records/aa/00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"records/aa holds a damaged record .*delete that folder"):
        compared(tmp_path)


def test_the_main_threat_has_enough_images(tmp_path: Path) -> None:
    write_training(tmp_path / "m", 1)
    write_evaluation(tmp_path, "m", {"pgd": [True] * 120, "aa": [True] * 99})
    one = read_evaluation(tmp_path / "evaluate" / "m")
    assert (found := main_threat([one])) is not None
    assert found.title == "PGD20 l∞ 4/255"
    assert (
        "PGD20 is weaker than AutoAttack, which ran on 99 images alone"
        in (say(tmp_path)["Not shown"])
    )
    write_evaluation(tmp_path, "n", {"pgd": [True] * 120, "aa": [True] * 100})
    one = read_evaluation(tmp_path / "evaluate" / "n")
    assert (found := main_threat([one])) is not None
    assert found.title == "AutoAttack l∞ 4/255"


def test_what_a_comparison_ended_is_said_as_such(tmp_path: Path) -> None:
    write_pair(tmp_path, 80, 30, 10, 80)
    folder = tmp_path / "evaluate" / "stage3_mpm"
    summary = RobustnessSummary.find(folder)
    assert summary is not None
    early = [replace(row, early=True) for row in summary.threats]
    replace(summary, threats=early).write(folder)
    width = "its interval was tight enough"
    assert all(width in line for line in read_evaluation(folder).warnings)
    assert "hold at any time" not in say(tmp_path)["Not shown"]
    rows = [
        {"threat": name, "images": 200, "available": 900, "better": better}
        for name, better in (("clean", ""), ("aa", "this"))
    ]
    write_json(folder / "decisions.json", {"against": "runs/b", "decisions": rows})
    clean, attacked = read_evaluation(folder).warnings
    assert clean == f"clean: ended after 200 images, {width}"
    wanted = "when a comparison with runs/b was decided: its intervals are too tight and too far"
    assert f"aa: ended after 200 images, {wanted} from 0, those in decisions.json hold" in attacked
    text = say(tmp_path)["Not shown"]
    assert f"AutoAttack l∞ 4/255 on stage3_mpm ended {wanted} from 0, those in decisions" in text
    assert text.count("hold at any time") == 1


def test_apgd_of_other_steps_is_another_threat(tmp_path: Path) -> None:
    for name, steps in (("stage3_mpm", 100), ("b", 20)):
        write_training(tmp_path / name, 1 if name == "stage3_mpm" else 0)
        write_evaluation(tmp_path, name, {"apgd": [True] * 200})
        threats = {"apgd": {"attack": "APGD", "steps": steps}}
        write_json(tmp_path / "evaluate" / name / "records/settings.json", {"threats": threats})
    titles = [read_evaluation(tmp_path / "evaluate" / n).threats[0].title for n in ("b", MPM.name)]
    assert titles == ["APGD20 l∞ 4/255", "APGD l∞ 4/255"]
    assert compared(tmp_path).attacked is None


def test_one_model_alone_claims_nothing_of_the_parts(tmp_path: Path) -> None:
    write_training(tmp_path / "stage3_mpm", 1)
    write_evaluation(tmp_path, "stage3_mpm", {"clean": [True] * 200, "aa": [True, False] * 100})
    text = say(tmp_path)["Robustness"]
    assert "50.0 % (40.0\N{EN DASH}60.0) of 200 images are right" in text
    assert "cannot be said without a baseline: make stage3-mpm" in text
    assert text.endswith(f"then make evaluate MODEL={tmp_path}/stage3_vanilla.")
    assert compared(tmp_path).attacked is None


def test_a_model_of_unknown_training_is_no_baseline(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_evaluation(tmp_path, name, {"aa": [True] * 200})
    assert compared(tmp_path).baseline is None
    assert "nothing is compared" in say(tmp_path)["Robustness"]


def test_the_baseline_is_the_most_alike_and_what_differs_is_said(tmp_path: Path) -> None:
    write_training(tmp_path / "stage3_mpm", 1, lr=0.1)
    write_training(tmp_path / "a", 0, lr=0.2, seed=4)
    write_training(tmp_path / "b", 0, lr=0.2, seed=3)
    for name in ("stage3_mpm", "a", "b"):
        write_evaluation(tmp_path, name, {"aa": [True] * 200})
    found = compared(tmp_path)
    assert found.baseline is not None
    assert (found.baseline.name, found.other_settings) == ("b", ("lr",))
    assert "the two trainings differ in lr, too" in say(tmp_path)["Not shown"]


def test_images_of_another_size_are_no_baseline(tmp_path: Path) -> None:
    for name, weight, size in (("stage3_mpm", 1, 64), ("b", 0, 32)):
        write_training(tmp_path / name, weight)
        write_evaluation(tmp_path, name, {"aa": [True] * 200}, size=size)
    assert compared(tmp_path).baseline is None
    assert "cannot be said without a baseline" in say(tmp_path)["Robustness"]


def test_limits_are_those_of_the_run(tmp_path: Path) -> None:
    write_pair(tmp_path, 80, 30, 10, 80)
    limits = say(tmp_path)["Not shown"]
    assert limits.startswith("One training of each (seed 3), so no interval holds")
    assert "images of 64 px, where the published rows have 224" in limits
    assert "200 images attacked, where the published rows have 10,000" in limits
    assert "AutoAttack" not in limits
    write_training(tmp_path / "alone" / "m", 1)
    write_evaluation(tmp_path / "alone", "m", {"aa": [True] * 10_000}, size=224)
    limits = say(tmp_path / "alone")["Not shown"]
    assert limits == "One training (seed 3), so no interval holds what another seed would change."


def test_the_segmenter_and_the_filter(tmp_path: Path) -> None:
    segmenter, labels = tmp_path / "stage1_segmenter", tmp_path / "stage2_pseudolabels"
    Metrics({"segm_AP": 0.371, "segm_AP_filtered": 0.463}, epoch=3).write(segmenter)
    assert say(tmp_path)["Part labels"] == (
        "The segmenter reaches 37.1 % mask AP on annotated images held out from its training, "
        "46.3 % with the category filter."
    )
    images = [ImageParts(f"a/{place}.jpg", 0, 8, 8) for place in range(2)]
    (labels / "labels").mkdir(parents=True)
    pq.write_table(to_table(images), labels / "labels" / "00000.parquet")
    assert say(tmp_path)["Part labels"].endswith("0 of 2 train images carry at least one part.")
    LabelQuality(0.7).write(labels)
    assert say(tmp_path)["Part labels"].endswith(
        "The pseudo labels have a mean IoU of 70.0 % with truth that was kept aside."
    )


def test_what_comes_first_is_named(tmp_path: Path) -> None:
    assert say(tmp_path) == {
        "Nothing to report": "Nothing has run in this folder. make demo runs everything on "
        "rendered images; on your own data begin with make stage1-segmenter."
    }
    for name in ("stage1_segmenter", "stage2_pseudolabels"):
        Manifest(name, "running").write(tmp_path / name)
    assert say(tmp_path) == {"Robustness": "No model was attacked yet: make stage3-mpm."}
    write_training(tmp_path / "stage3_mpm", 1)
    assert say(tmp_path) == {"Robustness": "No model was attacked yet: make evaluate."}


def test_the_folder_of_a_model_reaches_the_shell_whole(tmp_path: Path) -> None:
    runs = tmp_path / "one, two"
    for name in ("stage1_segmenter", "stage2_pseudolabels"):
        Manifest(name, "running").write(runs / name)
    write_training(runs / "stage3_mpm", 1)
    (statement,) = statements(read_runs(runs, ["stage3_mpm"]), None)
    assert statement.text.endswith(f"yet: make evaluate MODEL='{runs}/stage3_mpm'.")
