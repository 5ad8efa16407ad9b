"""Any value that is not finite ends a training at its step, and no checkpoint holds it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pipeline.runs import finite_training
from pipeline.runs.finite_training import MOST_SKIPPED, FiniteTraining

BAD = [float("nan"), float("inf"), -float("inf")]
STEPS = 6


class Line(LightningModule):
    """Two terms of a loss; in some steps a term, a gradient or a weight is broken."""

    def __init__(self, **damage: Any) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        self.loss_terms: dict[str, Tensor] = {}
        self.damage = {"step": 3, "steps": 1, "term": None, "gradient": None, "weight": None}
        self.damage |= damage
        self.validated = False

    def hit(self, step: int) -> bool:
        return 0 <= step - self.damage["step"] < self.damage["steps"]

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        out = self.network(batch)
        terms = {"first": out.square().mean(), "second": out.abs().mean()}
        if self.damage["term"] and self.hit(self.global_step + 1):
            name, value = self.damage["term"]
            terms[name] = terms[name] * value
        self.loss_terms = {name: term.detach() for name, term in terms.items()}
        return torch.stack(list(terms.values())).sum()

    def on_after_backward(self) -> None:
        if self.damage["gradient"] and self.hit(self.global_step + 1):
            name, place, value = self.damage["gradient"]
            gradient = dict(self.named_parameters())[name].grad.view(-1)
            gradient[place % len(gradient)] = value

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.damage["weight"] and self.hit(self.global_step + 1):
            name, place, value = self.damage["weight"]
            with torch.no_grad():
                weight = dict(self.named_parameters())[name].view(-1)
                weight[place % len(weight)] = value

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.validated = True
        self.log("val/figure", self.damage.get("figure", 0.0) + self.global_step)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(
    module: Line,
    root: Path,
    *callbacks: Any,
    read_every: int | None = None,
    save_every: int = 1,
    **kwargs: Any,
) -> tuple[Trainer, FiniteTraining]:
    torch.manual_seed(0)
    watch = FiniteTraining(read_every)
    saved = {"filename": "last", "enable_version_counter": False}
    last = ModelCheckpoint(root, every_n_train_steps=save_every, **saved)  # type: ignore[arg-type]
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=root,
        callbacks=[*callbacks, watch, last],
        **kwargs,
    )
    loader = DataLoader(torch.randn(STEPS, 2, 3), batch_size=None)  # type: ignore[arg-type]
    trainer.fit(module, loader, DataLoader(torch.randn(1, 2, 3), batch_size=None))  # type: ignore[arg-type]
    return trainer, watch


def last_step(root: Path) -> int:
    content = torch.load(root / "last.ckpt", weights_only=True)
    for key in {"state_dict", "current_model_state"} & content.keys():
        assert all(torch.isfinite(value).all() for value in content[key].values())
    return int(content["global_step"])


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("term", ["first", "second"])
def test_a_term_of_the_loss_is_named(term: str, value: float, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=rf"diverged in step 3 \(epoch 0, learning rate 0.01\): {term} is not finite; begin a "
        rf"new run .*--ckpt_path={tmp_path}/last.ckpt$",
    ):
        fit(Line(term=(term, value)), tmp_path)
    assert last_step(tmp_path) == 2


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("name", [name for name, _ in Line().named_parameters()])
def test_any_gradient_and_any_weight_is_found(name: str, value: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"in step 3 .*: the gradient is not finite;"):
        fit(Line(gradient=(name, 5, value)), tmp_path / "gradient")
    assert last_step(tmp_path / "gradient") == 2
    with pytest.raises(ValueError, match=rf"in step 3 .*: a weight is not finite \({name}\);"):
        fit(Line(weight=(name, 5, value)), tmp_path / "weight")
    assert last_step(tmp_path / "weight") == 2


@pytest.mark.parametrize(
    "damage", [{"term": ("first", torch.nan)}, {"gradient": ("network.0.bias", 0, torch.inf)}]
)
def test_read_late_it_is_the_same_step_and_no_checkpoint_is_spoilt(
    damage: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"diverged in step 3 \(epoch 0"):
        fit(Line(**damage), tmp_path, EMAWeightAveraging(decay=0.5), read_every=50)
    assert last_step(tmp_path) == 2


def test_without_a_checkpoint_it_is_read_before_the_validation(tmp_path: Path) -> None:
    module = Line(term=("first", torch.nan))
    with pytest.raises(ValueError, match=r"diverged in step 3 .*no checkpoint was written before$"):
        fit(module, tmp_path, read_every=50, save_every=100)
    assert not module.validated


def test_the_last_update_is_looked_at_too(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"diverged in step 6 .*a weight is not finite"):
        fit(
            Line(step=STEPS, weight=("network.1.bias", 0, torch.inf)), tmp_path, limit_val_batches=0
        )
    assert last_step(tmp_path) == 5


def test_accumulated_batches_are_all_looked_at(tmp_path: Path) -> None:
    module = Line(step=2, term=("second", torch.inf))  # both batches of the second update
    with pytest.raises(ValueError, match=r"diverged in step 2 .*second is not finite"):
        fit(module, tmp_path, accumulate_grad_batches=2)
    assert last_step(tmp_path) == 1


def test_a_figure_that_is_none_chooses_no_checkpoint(tmp_path: Path) -> None:
    best = ModelCheckpoint(tmp_path, filename="best", monitor="val/figure", mode="max")
    with pytest.raises(ValueError, match=r"after step 6 gives val/figure = nan.*best_checkpoint"):
        fit(Line(figure=torch.nan), tmp_path, best)
    assert not (tmp_path / "best.ckpt").exists()
    fit(Line(), tmp_path, ModelCheckpoint(tmp_path, filename="best", monitor="val/figure"))
    assert (tmp_path / "best.ckpt").exists()


def test_weights_that_are_not_finite_are_not_validated_either(tmp_path: Path) -> None:
    trainer, _ = fit(Line(), tmp_path)
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    content["state_dict"]["network.1.weight"][0, 0] = torch.nan
    torch.save(content, tmp_path / "bad.ckpt")
    loader: Any = DataLoader(torch.randn(1, 2, 3), batch_size=None)  # type: ignore[arg-type]
    module = Line()
    with pytest.raises(ValueError, match=r"bad\.ckpt holds values .* in network\.1\.weight"):
        trainer.validate(module, loader, ckpt_path=tmp_path / "bad.ckpt")
    assert not module.validated


def half(scaler: torch.amp.GradScaler | None) -> MixedPrecision:
    return MixedPrecision("16-mixed" if scaler else "bf16-mixed", "cpu", scaler)


@pytest.mark.parametrize(
    "damage", [{"term": ("first", torch.nan)}, {"gradient": ("network.0.bias", 0, torch.inf)}]
)
def test_a_scaler_skips_and_the_steps_are_counted(damage: dict[str, Any], tmp_path: Path) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)  # one that skips nothing by itself
    module = Line(steps=2, **damage)
    with pytest.warns(UserWarning, match=r"2 of 6 steps were skipped"):
        trainer, watch = fit(module, tmp_path, plugins=half(scaler))
    assert watch.skipped == 2
    assert trainer.callback_metrics["train/skipped_steps"] == 2
    assert scaler.get_scale() == 2.0**8
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert content["callbacks"]["FiniteTraining"] == {"skipped": 2}
    assert last_step(tmp_path) == STEPS


def test_a_scaler_that_only_skips_ends_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MOST_SKIPPED > 24  # halvings of any scale that a healthy training reaches
    monkeypatch.setattr(finite_training, "MOST_SKIPPED", 3)
    module = Line(step=2, steps=9, term=("second", torch.nan))
    with pytest.raises(
        ValueError, match=r"in step 4 .*second is not finite, as in the 2 steps bef"
    ):
        fit(module, tmp_path, plugins=half(torch.amp.GradScaler("cpu", init_scale=2.0**10)))


def test_bfloat16_has_no_scaler_and_skips_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="diverged in step 3"):
        fit(Line(gradient=("network.0.bias", 0, torch.inf)), tmp_path, plugins=half(None))
