"""Values that are not finite never become an answer."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from modules.attacks.threats import APGD, PGD, AutoAttack, Clean, Threat
from modules.generalisation_evaluator import GeneralisationEvaluator
from modules.pseudo_label_writer import load_segmenter
from modules.robustness_evaluator import RobustnessEvaluator
from modules.state_dicts.finite import all_finite, require_finite
from modules.state_dicts.weight_files import load_strictly
from modules.weights.classifier_folder import load_classifier
from tests.modules.tiny_classifier import export_tiny_classifier
from tests.modules.tiny_segmenter import save_tiny_segmenter

BAD = st.sampled_from([float("nan"), float("inf"), -float("inf")])


@settings(max_examples=50, deadline=None)
@given(value=BAD, place=st.integers(0, 11), name=st.sampled_from(["weight", "bias"]))
def test_any_value_of_any_tensor_is_refused_by_name(value: float, place: int, name: str) -> None:
    network = nn.Linear(4, 3)
    state = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    load_strictly(network, state, "good.ckpt")
    state[name].view(-1)[place % state[name].numel()] = value
    with pytest.raises(ValueError, match=rf"bad\.ckpt holds values that are not finite in {name}"):
        load_strictly(network, state, "bad.ckpt")
    assert all(torch.isfinite(p).all() for p in network.parameters())


@settings(max_examples=60, deadline=None)
@given(value=BAD, place=st.integers(0, 40), size=st.integers(1, 4), data=st.data())
def test_one_value_among_many_tensors_is_found(
    value: float, place: int, size: int, data: st.DataObject
) -> None:
    dtypes = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
    tensors = [torch.full((3, n + 1), 6e4, dtype=dtypes[n]) for n in range(size)]
    tensors += [torch.empty(0), torch.tensor([3]), torch.full((2,), 1e38)]  # 1e76 were no float
    assert all_finite(tensors)
    victim = tensors[data.draw(st.integers(0, size - 1))].view(-1)
    victim[place % len(victim)] = value
    assert not all_finite(tensors)


def test_counts_are_no_floats() -> None:
    require_finite({"num_batches_tracked": torch.tensor(3)}, "a.ckpt")


def test_diverged_checkpoints_are_refused_where_they_are_read(tmp_path: Path) -> None:
    run = export_tiny_classifier(tmp_path / "run", num_classes=3)
    broken = _spoil(run / "export" / "model.safetensors")
    with pytest.raises(ValueError, match=f"not finite in {broken}"):
        load_classifier(run)
    object_parts = torch.tensor([[True, True, True]])
    save_tiny_segmenter(tmp_path / "segmenter", object_parts)
    checkpoint = tmp_path / "segmenter" / "checkpoints" / "best.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    next(iter(content["state_dict"].values())).fill_(torch.nan)
    torch.save(content, checkpoint)
    with pytest.raises(ValueError, match=r"best\.ckpt holds values that are not finite"):
        load_segmenter(checkpoint, object_parts, 0.05, 10)


class Overflowing(nn.Module):
    """Finite weights, but bright images have logits that are not finite."""

    num_classes = 3

    def forward(self, images: Tensor) -> Tensor:
        logits = images.mean((2, 3))
        return torch.where(logits > 0.5, torch.nan, logits)


@pytest.mark.parametrize("threat", [Clean(), PGD(0.3, 3, 0.2), APGD(0.3), AutoAttack(0.3)])
def test_logits_that_are_not_finite_are_no_answer(threat: Threat) -> None:
    """Neither on the images nor on those that an attack finds; class 0 was right before."""
    module = RobustnessEvaluator(Overflowing(), threats={"one": threat})
    batch = {"label": torch.zeros(2, dtype=torch.int64), "threat": "one", "attack_seed": 0}
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    bright = torch.full((2, 3, 8, 8), 200, dtype=torch.uint8)
    with pytest.raises(ValueError, match="Overflowing gives logits that are not finite for 2 of 2"):
        module.test_step(batch | {"image": bright}, 0)
    if threat.norm is not None:
        with pytest.raises(ValueError, match="logits that are not finite"):
            module.test_step(batch | {"image": bright // 2}, 0)  # 0.39, the ball reaches 0.69


def test_generalisation_refuses_them_too(tmp_path: Path) -> None:
    run = export_tiny_classifier(tmp_path / "run", num_classes=3, image_size=32)
    module = GeneralisationEvaluator(run)
    with torch.no_grad():  # what an overflow in half precision does
        module.network.network.get_classifier().bias.fill_(torch.inf)
    batch = {
        "image": torch.zeros(2, 3, 32, 32, dtype=torch.uint8),
        "label": torch.zeros(2, dtype=torch.int64),
        "set": "sketch",
        "groups": None,
        "aggregate": "mask",
    }
    with pytest.raises(ValueError, match="run gives logits that are not finite for 2 of 2 images"):
        module.test_step(batch, 0)


def _spoil(file: Path) -> str:
    from safetensors.torch import load_file, save_file

    state = load_file(file)
    name = sorted(name for name, value in state.items() if value.is_floating_point())[0]
    state[name].view(-1)[0] = torch.nan
    save_file(state, file)
    return name
