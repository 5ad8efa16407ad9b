import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamodules.evaluation.human_decisions import read_decisions
from datamodules.evaluation.object_groups import human_categories
from datamodules.generalisation import RECORD_SCHEMA
from pipeline.evaluation.human_alignment import main
from pipeline.evaluation.human_consistency import model_alignment

CONDITIONS = {"contrast": ("c100", "c50", "c05", "c01"), "edge": ("0",)}


def trials(experiment: str) -> list[tuple[str, str, str]]:
    """Image name, condition and category of 32 images for each condition."""
    names = human_categories()
    return [
        (f"{condition}_{names[i % 16]}_10_n0{i}_{condition}.png", condition, names[i % 16])
        for condition in CONDITIONS[experiment]
        for i in range(32)
    ]


def write(folder: Path, subject: str, share: float, seed: int) -> None:
    """CSV files of a decision maker who guesses a share of the answers."""
    for experiment in CONDITIONS:
        draw = random.Random(f"{seed}/{experiment}")
        rows = ["subj,session,trial,rt,object_response,category,condition,imagename"]
        for i, (name, condition, category) in enumerate(trials(experiment)):
            answer = draw.choice(human_categories()) if draw.random() < share else category
            image = f"{i:04d}_x_{subject[-2:]}_{name}"
            rows.append(f"{subject},1,{i},0.5,{answer},{category},{condition},{image}")
        (folder / experiment).mkdir(parents=True, exist_ok=True)
        (folder / experiment / f"{experiment}_{subject}.csv").write_text("\n".join(rows) + "\n")


@pytest.fixture
def humans(tmp_path: Path) -> Path:
    for number in range(3):
        write(tmp_path / "humans", f"subject-0{number}", 0.3, number)
    return tmp_path / "humans"


def records_of(csvs: Path, run: Path) -> None:
    """The same decisions as records of a generalisation run."""
    names = human_categories()
    for experiment, (one,) in read_decisions(csvs).items():
        prefix = {"contrast": "dnn/session-1/0001_cop_dnn_"}.get(experiment, "cat/")
        columns = {
            "key": [f"{prefix}c50_cat_10_{image}.png" for image in one.images],
            "label": [names.index(category) for category in one.categories],
            "prediction": [names.index(answer) for answer in one.responses],
            "correct": one.correct.tolist(),
            "confidence": [1.0] * len(one.images),
        }
        folder = run / "generalisation" / "records" / "din" / experiment
        folder.mkdir(parents=True)
        table = pa.table(columns, schema=RECORD_SCHEMA)
        pq.write_table(table.slice(0, 20), folder / "00000.parquet")
        pq.write_table(table.slice(20), folder / "00001.parquet")


def test_models_from_records_and_from_files_beside_people(humans: Path, tmp_path: Path) -> None:
    write(tmp_path / "net", "net", 0.6, 9)
    records_of(tmp_path / "net", tmp_path / "stage3_mpm")
    edge = tmp_path / "net" / "edge" / "edge_net.csv"
    models = [tmp_path / "net", tmp_path / "stage3_mpm", edge]
    out = tmp_path / "out"
    main(humans, out, models)
    content = json.loads((out / "human_alignment.json").read_text())
    rows = {row["name"]: row for row in content["rows"]}
    assert list(rows) == ["humans", "net", "stage3_mpm", "edge_net"]
    assert rows["net"]["experiments"] == rows["stage3_mpm"]["experiments"]
    people, (one,) = read_decisions(humans), read_decisions(tmp_path / "net")["edge"]
    wanted = model_alignment(one, people["edge"])
    assert rows["edge_net"]["mean"] == wanted | {"ood_accuracy": one.correct.mean()}
    assert (rows["net"]["of"], rows["edge_net"]["of"]) == (2, 1)
    assert rows["edge_net"]["missing"] == {"contrast": "no decisions of the model"}
    assert len(content["absent"]) == 15
    text = (out / "human_alignment.md").read_text()
    assert "| MPM, published | 17 | 0.069 | 0.679 | 0.261 | - |" in text
    assert "| colour | no human decisions |" in text
    for name in ("accuracy", "error_consistency", "error_consistency_by_condition"):
        assert "stage3_mpm" in (out / f"{name}.svg").read_text()


def test_wrong_inputs_are_refused(humans: Path, tmp_path: Path) -> None:
    def align(model: Path) -> None:
        main(humans, tmp_path / "out", model)

    with pytest.raises(FileNotFoundError, match="holds no experiment"):
        align(tmp_path)
    (tmp_path / "run" / "records").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="run `generalisation` with the stimuli folder"):
        align(tmp_path / "run")
    with pytest.raises(ValueError, match="holds 3 decision makers"):
        align(humans)
    write(tmp_path / "net", "net", 0.6, 9)
    file = tmp_path / "net" / "edge" / "edge_net.csv"
    file.write_text("\n".join(file.read_text().splitlines()[:-1]))
    with pytest.raises(ValueError, match="share 31 of 31 and 32 images"):
        align(file)
    with pytest.raises(FileNotFoundError, match="holds no decisions of people"):
        main(tmp_path / "net", tmp_path / "out")
    assert not (tmp_path / "out").exists()
