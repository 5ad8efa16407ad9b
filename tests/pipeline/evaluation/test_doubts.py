"""What makes figures wrong is refused before the attack; what makes them doubtful is kept."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from datamodules.files.errors import UserError
from modules.attacks.threats import PGD, AutoAttack, Square, Threat
from modules.mpm import MPM
from modules.networks.structures import NetworkSettings, Structure
from modules.robustness_evaluator import RobustnessEvaluator
from pipeline.evaluation.summaries import RobustnessSummary
from pipeline.report.build import build_report
from tests.modules import foreign_networks
from tests.pipeline.commands import run, stage_args
from tests.pipeline.evaluation.evaluation_runs import contents, evaluate_robustness

IMAGES = {"clean": 4, "pgd": 4}


def named(network: str, **init_args: int) -> dict:
    return {"class_path": f"tests.modules.foreign_networks.{network}", "init_args": init_args}


def warnings_of(run: Path) -> list[str]:
    return RobustnessSummary.read(run).warnings


WRONG = {
    "ReturnsTuple": r"answers with a tuple, not with a tensor of logits \(N, classes\)",
    "ReturnsDict": "answers with a dict of logits, aux, not with a tensor",
    "Dense": r"answers 4 images with a tensor \(4, 3, 4, 4\), not with logits",
    "OneForAll": r"answers 4 images with a tensor \(1, 3\), not with logits",
    "Classes": r"answers in torch\.int64, which has no gradient",
    "NotFinite": "gives logits that are not finite for 4 of 4 images",
    "Detached": r"passes no gradient to its images, so attacks by gradient \(pgd\) would call it",
    "UnderNoGrad": "passes no gradient to its images",
    "Rounding": "passes no gradient to its images",
    "InfiniteGradient": r"has a gradient that is not finite, at which attacks by gradient \(pgd\)",
    "WantsNumPy": r"fails at a batch of images \(4, 3, 16, 16\) of float32 .*requires grad",
    "WantsLarger": r"fails at a batch of images \(4, 3, 16, 16\) of float32 in \[0, 1\] \(shape",
    "InPlace": "changes the images it is given in place",
    "BatchStatistics": r"fails at a batch of images \(1, 3, 16, 16\) .*Expected more than 1 value",
    "BatchNorm": "answers an image otherwise alone than in a batch",
}


@pytest.mark.parametrize("network", WRONG)
def test_wrong_answers_end_the_run_before_the_attack(
    network: str, shapes_root: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=rf"model \S*{network} {WRONG[network]}") as refusal:
        evaluate_robustness(named(network), shapes_root, tmp_path, images=IMAGES)
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.rglob("*.parquet"))


def test_another_number_of_classes_is_refused(shapes_root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Sound has 5 classes, the data has 3 object categories"):
        evaluate_robustness(named("Sound", classes=5), shapes_root, tmp_path, images=IMAGES)
    assert not list(tmp_path.rglob("*.parquet"))


DOUBTFUL = {
    "Random": r"answers the same images differently .* under pgd cannot .* version rand, which",
    "Dropout": "answers the same images differently from call to call",
    "Probabilities": r"answers with probabilities .* leave out its soft-max",
    "Half": r"computes in torch\.float16: rounding hides",
    "HalfBlind": r"passes no gradient to [123] of 4 images: attacks by gradient \(pgd\) may fail",
}


@pytest.mark.parametrize("network", DOUBTFUL)
def test_doubts_are_kept_and_shown_once(
    network: str, shapes_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "evaluate" / "foreign"
    evaluate_robustness(named(network), shapes_root, folder, images=IMAGES)
    (line,) = warnings_of(folder)
    assert caplog.messages.count(line) == 1
    assert line.startswith(f"WARNING: model tests.modules.foreign_networks.{network} ")
    page = build_report(tmp_path).read_text()
    section = page[page.index('id="results"') : page.index("<table", page.index('id="results"'))]
    assert f"foreign_networks.{network}" in section
    assert json.loads((folder / "summary.json").read_text())["warnings"] == [line]


def test_a_sound_network_gives_no_doubt(shapes_root: Path, tmp_path: Path) -> None:
    evaluate_robustness(named("Sound"), shapes_root, tmp_path, images=IMAGES)
    assert warnings_of(tmp_path) == []
    assert not (tmp_path / "records" / "doubts.json").exists()


def test_attacks_without_gradients_need_none(shapes_root: Path, tmp_path: Path) -> None:
    network = named("Detached")
    evaluate_robustness(network, shapes_root, tmp_path, Square(0.05), images=IMAGES)
    assert RobustnessSummary.read(tmp_path).threats[1].n == 4


def test_one_image_is_probed_beside_its_mirror(shapes_root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="otherwise alone than in a batch"):
        evaluate_robustness(named("BatchNorm"), shapes_root, tmp_path, images={"clean": 1})


AVERAGED = AutoAttack(0.05, version="rand")
CUSTOM = AutoAttack(0.05, version="custom", attacks=["apgd-ce", "apgd-t"])


@pytest.mark.parametrize(
    ("network", "threat", "text"),
    [
        ("Sound", CUSTOM, "apgd-t is left out, as its loss needs 4 classes or more: the result"),
        ("Random", CUSTOM, "it seems to be a randomized defense"),
        ("Probabilities", CUSTOM, "it seems that the output is a probability distribution"),
        ("Sound", AVERAGED, None),
    ],
)
def test_what_the_library_warns_of_is_kept(
    network: str,
    threat: Threat,
    text: str | None,
    shapes_root: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    images = {"clean": 4, "pgd": 7}
    evaluate_robustness(named(network), shapes_root, tmp_path, threat, images)
    lines = [line for line in warnings_of(tmp_path) if "attack library" in line]
    wanted = [line for line in lines if text and text in line]
    assert len(wanted) == (text is not None)
    assert all("WARNING: pgd: the attack library warns in 3 of 3 chunks: " in x for x in wanted)
    assert all(caplog.messages.count(line) == 1 for line in lines)
    assert "flags_doc" not in capfd.readouterr().err + "".join(lines)


class StopsAt(PGD):
    """PGD with a warning of the library at the first chunk, which dies at the second."""

    def __init__(self, left: int) -> None:
        super().__init__(0.05, 2, 0.03)
        self._left = left

    @property
    def settings(self) -> dict:
        return PGD(0.05, 2, 0.03).settings

    def perturb(self, network, images, labels, seed):  # noqa: ANN001, ANN201
        if self._left == 0:
            raise RuntimeError("power cut")
        self._left -= 1
        AutoAttack(0.01, version="custom", attacks=["apgd-ce"]).search(
            network, images, labels, seed
        )
        return super().perturb(network, images, labels, seed)


def test_a_cut_run_keeps_the_doubts_of_its_earlier_part(shapes_root: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    network = named("Probabilities")
    images = {"clean": 4, "pgd": 7}
    evaluate_robustness(network, shapes_root, whole, StopsAt(9), images)
    assert len(warnings_of(whole)) == 2
    with pytest.raises(RuntimeError, match="power cut"):
        evaluate_robustness(network, shapes_root, cut, StopsAt(2), images)
    evaluate_robustness(network, shapes_root, cut, StopsAt(9), images)
    assert contents(cut) == contents(whole)
    (cut / "summary.json").unlink()
    evaluate_robustness(network, shapes_root, cut, StopsAt(0), images)  # nothing is left to do
    assert contents(cut) == contents(whole)


def test_two_processes_keep_the_same_doubts(shapes_root: Path, tmp_path: Path) -> None:
    evaluate_robustness(named("Probabilities"), shapes_root, tmp_path / "one", CUSTOM, IMAGES)
    evaluate_robustness(
        named("Probabilities"),
        shapes_root,
        tmp_path / "two",
        CUSTOM,
        IMAGES,
        strategy="ddp_spawn",
        devices=2,
    )
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_records_without_warnings_are_read(shapes_root: Path, tmp_path: Path) -> None:
    """Those of earlier versions say nothing of warnings."""
    evaluate_robustness(named("Sound"), shapes_root, tmp_path, images=IMAGES)
    for path in tmp_path.rglob("*.parquet"):
        assert b"warnings" not in (pq.read_schema(path).metadata or {})
    assert warnings_of(tmp_path) == []


@pytest.mark.parametrize(
    ("network", "code", "line"),
    [
        ("Probabilities", 0, "foreign_networks.Probabilities answers with probabilities"),
        ("ReturnsDict", 1, "error: model tests.modules.foreign_networks.ReturnsDict answers with"),
    ],
)
def test_from_the_command_line(
    network: str, code: int, line: str, shapes_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "stage3_mpm").mkdir()
    given = f"--model.init_args.model={json.dumps(named(network))}"
    found, output = run(stage_args("evaluate", shapes_root, tmp_path, given))
    assert found == code, output
    assert output.count(line) == 1
    assert "Traceback" not in output
    assert (tmp_path / "evaluate" / "summary.json").exists() == (code == 0)


@pytest.mark.parametrize("structure", ["downsampled", "judgment"])
def test_networks_of_ours_raise_no_doubt(
    structure: Structure, shapes_root: Path, tmp_path: Path
) -> None:
    """A judgment block passes no gradient, but attacks take its surrogate."""
    settings = NetworkSettings(structure, "resnet10t", {"channels": [8, 8, 16, 16]})
    MPM(torch.ones(3, 6, dtype=torch.bool), settings).export(tmp_path / "m" / "export")
    evaluate_robustness(tmp_path / "m", shapes_root, tmp_path / "run", images=IMAGES)
    assert warnings_of(tmp_path / "run") == []


def test_the_global_generator_is_left_alone() -> None:
    evaluator = RobustnessEvaluator(foreign_networks.Random(), {"pgd": PGD(0.1, 1, 0.1)})
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    state = torch.get_rng_state()
    (line,) = evaluator.probe(images, ["pgd"])
    assert "differently from call to call" in line
    assert torch.equal(torch.get_rng_state(), state)
