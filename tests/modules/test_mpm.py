from dataclasses import fields
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from modules.attacks.balls import Norm
from modules.attacks.statistics import StatisticsMode, under_attack
from modules.attacks.training_attack import TrainingAttack
from modules.mpm import MPM
from modules.networks.part_network import BypassNetwork
from modules.networks.recogniser import Recogniser
from modules.networks.structures import NetworkSettings, Structure

TINY = {"channels": [8, 8, 16, 16], "stem_width": 8, "act_layer": "gelu"}
OBJECT_PARTS = torch.ones(4, 6, dtype=torch.bool)


def mpm(**kwargs: Any) -> MPM:
    """A tiny model; settings of its attack are given with those of the module."""
    torch.manual_seed(0)
    names = [field.name for field in fields(TrainingAttack) if field.name in kwargs]
    attack = TrainingAttack(**{name: kwargs.pop(name) for name in names})
    return MPM(OBJECT_PARTS, tiny_network(), attack=attack, **kwargs)


def tiny_network(structure: Structure = "bypass") -> NetworkSettings:
    return NetworkSettings(structure, "resnet18", TINY, image_size=32)


def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "image": torch.randint(0, 256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8),
        "label": torch.arange(4),
        "part_labels": torch.randint(0, 6, (4, 4, 4), generator=generator),
        "part_weight": torch.tensor([1.0, 1.0, 0.0, 1.0]),
    }


def test_features_and_logits_are_those_of_the_plain_network() -> None:
    torch.manual_seed(0)
    network = Recogniser("resnet18", 4, TINY).eval()
    images = torch.rand(2, 3, 32, 32)
    logits, features = network.forward_with_features(images, 3)
    torch.testing.assert_close(logits, network(images))
    assert [f.shape[1:] for f in features] == [(8, 4, 4), (16, 2, 2), (16, 1, 1)]
    assert network.channels(3) == [8, 16, 16]


@pytest.mark.parametrize(
    "architecture", ["resnet18", "convnext_atto", "swin_tiny_patch4_window7_224"]
)
def test_other_backbones_give_three_levels(architecture: str) -> None:
    network = Recogniser(architecture, 4).eval()
    with torch.no_grad():
        logits, features = network.forward_with_features(torch.rand(1, 3, 224, 224), 3)
    assert logits.shape == (1, 4)
    assert [f.shape[1] for f in features] == network.channels(3)
    assert [f.shape[-1] for f in features] == [28, 14, 7]


@pytest.mark.parametrize("num_supervised", [1, 3])
def test_a_plain_vision_transformer_gets_levels(num_supervised: int) -> None:
    recogniser = Recogniser("vit_tiny_patch16_224", 4)
    network = BypassNetwork(recogniser, 6, num_supervised).eval()
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        logits, levels = network.forward_with_parts(images)
        torch.testing.assert_close(logits, network(images))
    assert [level.features.shape[-1] for level in levels] == [28, 14, 7][-num_supervised:]
    assert ("pyramid.finer.weight" in network.state_dict()) is (num_supervised == 3)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_attack_leaves_statistics_alone_and_training_mode_on(mode: StatisticsMode) -> None:
    model = mpm(eps=8 / 255)
    model.network.recogniser.network.bn1.eval()  # a layer that is frozen stays frozen
    before = {n: b.clone() for n, b in model.network.named_buffers()}
    images = model._pixels(batch())
    with under_attack(model.network, mode):
        assert model.network.recogniser.network.layer1.training == (mode == "train")
        model.attack(images, lambda x: model.network(x).sum(1))
    assert model.network.recogniser.network.layer1.training
    assert not model.network.recogniser.network.bn1.training
    assert all(torch.equal(b, dict(model.network.named_buffers())[n]) for n, b in before.items())


def test_part_loss_weight_enters_the_loss_linearly() -> None:
    losses = []
    for weight in (0.0, 1.0, 2.0):
        model = mpm(part_loss_weight=weight, eps=0.0)
        model.log = model.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
        losses.append(model.training_step(batch(), 0))
    torch.testing.assert_close(losses[2] - losses[1], losses[1] - losses[0])
    assert losses[1] > losses[0]


def test_parts_of_unlabelled_images_do_not_matter() -> None:
    model = mpm(eps=0.0)
    model.log = model.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
    first = batch()
    second = batch()
    second["part_labels"][2] = 5 - second["part_labels"][2]
    torch.testing.assert_close(model.training_step(first, 0), model.training_step(second, 0))


def test_predicted_parts_have_the_supervised_resolution() -> None:
    parts = mpm().predict_parts(torch.rand(2, 3, 32, 32))
    assert parts is not None
    assert parts.shape == (2, 4, 4)
    assert mpm(part_loss_weight=0).predict_parts(torch.rand(2, 3, 32, 32)) is None


def test_parts_of_bytes_are_those_of_the_image() -> None:
    model, images = mpm().eval(), batch()["image"]
    parts, expected = model.predict_parts(images), model.predict_parts(images / 255)
    assert parts is not None
    assert expected is not None
    assert torch.equal(parts, expected)


def test_unknown_network_is_named() -> None:
    with pytest.raises(ValueError, match="no network 'resnet51'; close names: resnet"):
        Recogniser("resnet51", 4)


def test_missing_object_parts_is_named() -> None:
    with pytest.raises(ValueError, match="object_parts"):
        MPM()


def silent(**kwargs: Any) -> MPM:
    model = mpm(**kwargs)
    model.log = model.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
    return model


def noise_of_two_steps(batch_size: int, accumulated: int) -> Tensor:
    """What the attack draws for each of eight images, in the order of the images."""
    model, drawn = mpm(), list[Tensor]()

    def attack(images: Tensor, loss: Any, generators: list[torch.Generator], **_: Any) -> Tensor:
        drawn.extend(torch.rand(1, generator=generator) for generator in generators)
        return images

    model.attack = attack  # type: ignore[assignment]
    torch.manual_seed(0)
    trainer = Trainer(
        max_steps=2,
        accumulate_grad_batches=accumulated,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    images = [{name: value[i] for name, value in batch().items()} for i in (0, 1, 2, 3)] * 2
    trainer.fit(model, DataLoader(images, batch_size))  # type: ignore[arg-type]
    return torch.cat(drawn)


def test_accumulated_batches_start_where_the_whole_batch_does() -> None:
    """Each image of a step from a point of its own, however the step is cut into batches."""
    whole, cut = noise_of_two_steps(4, 1), noise_of_two_steps(2, 2)
    assert len(whole.unique()) == 8
    assert torch.equal(cut, whole)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_every_ball_trains(norm: Norm) -> None:
    module = mpm(norm=norm, eps=1.0, mode="train")
    assert module.training_step(batch(), 0).isfinite()


def test_trades_without_a_perturbation_is_clean_training() -> None:
    clean = silent(eps=0.0, part_loss_weight=0.0).training_step(batch(), 0)
    trades = silent(eps=0.0, part_loss_weight=0.0, objective="trades").training_step(batch(), 0)
    torch.testing.assert_close(clean, trades)


def test_trades_adds_the_divergence_of_predictions() -> None:
    losses = [
        silent(eps=8 / 255, objective="trades", trades_weight=weight).training_step(batch(), 0)
        for weight in (0.0, 1.0, 2.0)
    ]
    torch.testing.assert_close(losses[2] - losses[1], losses[1] - losses[0])
    assert losses[1] > losses[0]


def test_object_masks_have_one_class_an_object() -> None:
    model = silent(eps=0.0, supervision="objects")
    assert model.network.bypass.heads[0].pointwise.out_channels == 5
    first, second = batch(), batch()
    second["part_labels"] = second["part_labels"].clamp(max=1)  # another part, the same object
    torch.testing.assert_close(model.training_step(first, 0), model.training_step(second, 0))


def test_head_alignment_trains_only_what_is_new() -> None:
    model = silent(eps=0.0, train_only_new=True)
    model.training_step(batch(), 0).backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert {name for name in trained if "recogniser" in name} == {
        "network.recogniser.network.fc.weight",
        "network.recogniser.network.fc.bias",
    }
    assert all(name in trained for name, _ in model.named_parameters() if ".bypass." in name)


@pytest.mark.parametrize("structure", ["bypass", "downsampled", "bounding_box", "judgment"])
def test_every_structure_trains(structure: Structure) -> None:
    object_parts = torch.tensor(
        [[1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [1, 0, 0, 1, 0], [1, 0, 0, 0, 1]]
    )
    torch.manual_seed(0)
    model = MPM(
        object_parts.bool(),
        tiny_network(structure),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05),
    )
    model.log = model.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
    given = batch()
    given["part_labels"] = given["part_labels"].clamp(max=4)
    if structure != "bypass":
        given["part_labels"] = given["part_labels"][:, ::4, ::4]
    optimizer = model.optimizer(model.parameters())
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = model.training_step(given, 0)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(p.grad is not None for p in model.network.parameters())


def test_a_structure_of_parts_needs_parts() -> None:
    with pytest.raises(ValueError, match=r"downsampled.*part_loss_weight"):
        MPM(OBJECT_PARTS, tiny_network("downsampled"), part_loss_weight=0.0)
