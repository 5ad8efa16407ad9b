"""What the loaders of weights say of files that they leave out of, or refuse."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from datamodules.files.errors import UserError
from modules.networks.structures import build_network
from modules.state_dicts.weight_files import load_named
from modules.weights.initial_weights import load_initial_weights
from tests.modules.state_dicts.loaders import LOADERS, TINY, initial, plain, prefixed


def test_what_stands_for_another_tensor_is_said_as_it_is(tmp_path: Path) -> None:
    network = build_network("bypass", "resnet18", torch.ones(4, 0).bool(), model_args=TINY)
    own, count = plain().state_dict(), len(plain().state_dict())
    for other, note in (
        (plain(), f"{count} tensors are in the file twice"),
        (plain(9), "tensors are left out: the file holds their average"),
    ):
        state = {f"ema.{name}": value for name, value in own.items()} | prefixed("model.", other)
        torch.save(state, tmp_path / "net.pt")
        notes = load_initial_weights(network, tmp_path / "net.pt")
        assert any(line.endswith(note) for line in notes)
        assert network.backbone().conv1.weight.equal(own["conv1.weight"])


FOREIGN = {f"encoder.block{i}.kernel": torch.zeros(2) for i in range(5)}
REFUSED = {
    "foreign": (FOREIGN, r"names its .* than \S+: the file has (encoder.block\d.kernel, ){2}enc\S+"
                r", the network conv1\.\S+, \S+, \S+: give the architecture"),
    "foreign below a prefix": ({f"module.{n}": v for n, v in FOREIGN.items()}, r"has module\.enc"),
    "two networks": (prefixed("", plain()) | prefixed("model.", plain(9)), "two different netw"),
    "two state dicts": (
        {"state_dict": plain().state_dict(), "net": plain(9).state_dict()},
        "holds two state dicts that differ, state_dict and net: save",
    ),
    "a layer beside the prefix": (
        {("" if n.startswith("fc.") else "model.") + n: v for n, v in plain().state_dict().items()},
        r"holds fc\.weight, while the network's other tensors have model\. before",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("load", LOADERS)
def test_refusals_say_what_is_wrong(
    load: Callable[[Path], nn.Module], case: str, tmp_path: Path
) -> None:
    content, message = REFUSED[case]
    torch.save(content, tmp_path / "net.pt")
    with pytest.raises(UserError, match=rf"net\.pt.*{message}") as refusal:
        load(tmp_path / "net.pt")
    assert "\n" not in str(refusal.value)
    assert "number of classes" not in str(refusal.value)


def test_a_file_without_classifier_is_of_no_other_number_of_classes(tmp_path: Path) -> None:
    state = {n: v for n, v in plain().state_dict().items() if not n.startswith("fc.")}
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(UserError, match=r"net\.pt holds no whole classifier \(fc\.weight None"):
        initial(tmp_path / "net.pt")


def test_two_layers_are_not_two_networks() -> None:
    state = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.ones(2), "norm.weight": torch.ones(7)}
    with pytest.raises(UserError, match=r"does not fit Linear; leftover: norm\.weight"):
        load_named(nn.Linear(3, 2), state, "net.pt")
