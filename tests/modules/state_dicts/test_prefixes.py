"""All loaders of weights undo the same wrappings and prefixes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from modules.mpm import MPM
from modules.networks.normalisation import Normalised
from modules.networks.structures import NetworkSettings
from modules.state_dicts.prefixes import AVERAGES, HOLDERS, WRAPPERS, undo_prefixes
from modules.state_dicts.weight_files import WRAPPINGS, load_named, state_of
from tests.modules.state_dicts.loaders import LOADERS, MEAN, STD, TINY, plain, prefixed
from tests.modules.weights.released_networks import trained


def compiled(network: nn.Module) -> nn.Module:
    return torch.compile(network, backend="eager")  # type: ignore[return-value]


def split_in_two(network: nn.Module) -> dict[str, Tensor]:
    """As torch's ImageNet example: the trunk alone is data parallel."""
    return {
        name if name.startswith("fc.") else name.replace(".", ".module.", 1): value
        for name, value in network.state_dict().items()
    }


LAYOUTS: dict[str, Callable[[nn.Module], Any]] = {
    "bare": lambda n: n.state_dict(),
    "data parallel": lambda n: nn.DataParallel(n).state_dict(),
    "Lightning": lambda n: {"state_dict": prefixed("model.", n), "epoch": 3},
    "compiled in Lightning": lambda n: {"state_dict": prefixed("network._orig_mod.", n)},
    "data parallel within": lambda n: {"state_dict": split_in_two(n)},
    "averaged": lambda n: AveragedModel(n).state_dict(),
    "averaged, compiled": lambda n: AveragedModel(compiled(n)).state_dict(),
    "compiled, averaged": lambda n: compiled(AveragedModel(n)).state_dict(),
    "counted without module": lambda n: {
        "n_averaged": torch.tensor(2),
        **prefixed("_orig_mod.", n),
    },
    "averaged beside the live": lambda n: {
        "state_dict": {**prefixed("model.", plain(9)), **prefixed("model_ema.module.", n)}
    },
    "ema_pytorch": lambda n: {
        "initted": torch.tensor(True),
        "step": torch.tensor(7),
        **prefixed("online_model.", plain(9)),
        **prefixed("ema_model.", n),
    },
    "torchvision": lambda n: {"model": plain(9).state_dict(), "model_ema": prefixed("module.", n)},
    "timm": lambda n: {"state_dict": plain(9).state_dict(), "state_dict_ema": n.state_dict()},
    "nested": lambda n: {"model_state": {"net": {"state_dict": prefixed("module.model.", n)}}},
    "the same twice": lambda n: {"model": n.state_dict(), "net": n.state_dict()},
    "Lightning's average": lambda n: {
        "state_dict": prefixed("network.", n),
        "current_model_state": prefixed("network.", plain(9)),
        "averaging_state": {"n_averaged": torch.tensor(3)},
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("load", LOADERS)
def test_logits_are_those_of_the_saved_network(
    load: Callable[[Path], nn.Module], layout: str, tmp_path: Path
) -> None:
    network = plain()
    torch.save(LAYOUTS[layout](network), tmp_path / "net.pt")
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = Normalised(network, MEAN, STD)(images)
        assert torch.equal(load(tmp_path / "net.pt")(images), wanted)


class Module(LightningModule):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.network(batch[0]).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("load", LOADERS)
def test_a_checkpoint_of_lightning_gives_its_average(
    load: Callable[[Path], nn.Module], tmp_path: Path
) -> None:
    module = Module(plain())
    trainer = Trainer(
        max_steps=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[EMAWeightAveraging(decay=0.5)],
    )
    images = torch.utils.data.TensorDataset(torch.rand(4, 3, 32, 32))
    trainer.fit(module, torch.utils.data.DataLoader(images, batch_size=2))
    (file,) = tmp_path.rglob("*.ckpt")
    content = torch.load(file, weights_only=True)
    found = load(file).state_dict()
    name = next(name for name in found if name.endswith("layer4.1.conv2.weight"))
    key = "network.layer4.1.conv2.weight"
    assert torch.equal(found[name], content["state_dict"][key])
    assert not torch.equal(found[name], content["current_model_state"][key])


WORDS = st.lists(st.sampled_from([*WRAPPERS, *HOLDERS]), max_size=5)
KEYS = st.lists(st.sampled_from([key for keys in WRAPPINGS for key in keys]), max_size=3)


@st.composite
def nested(draw: st.DrawFn, network: nn.Module) -> Any:
    """What some training code could have saved of a network."""
    words, around = draw(WORDS), draw(WORDS)
    content: dict[str, Any] = prefixed(".".join([*words, ""]), network)
    if any(word in AVERAGES for word in words) and draw(st.booleans()):
        live = network.state_dict()  # as it was before averaging
        content |= {f"live.{name}": value + 1 for name, value in live.items()}
    counter = draw(st.sampled_from(["", "n_averaged", "step"]))
    if counter:
        count = {counter: torch.tensor(5)}
        content = count | content if draw(st.booleans()) else content | count
    content = {".".join([*around, name]): value for name, value in content.items()}
    for key in draw(KEYS):
        content = {"epoch": 3, key: content}
    return content


SMALL = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
SOURCE = plain()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(nested(SMALL))
def test_any_nesting(content: Any) -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
    load_named(network, state_of(content, "net.pt"), "net.pt")
    inputs = torch.rand(5, 3)
    assert torch.equal(network(inputs), SMALL(inputs))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(nested(SOURCE))
def test_any_nesting_through_all_loaders(
    tmp_path_factory: pytest.TempPathFactory, content: Any
) -> None:
    path = tmp_path_factory.mktemp("nested") / "net.pt"
    torch.save(content, path)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        wanted = Normalised(SOURCE, MEAN, STD)(images)
        assert all(torch.equal(load(path)(images), wanted) for load in LOADERS)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda m: m.state_dict(),
        lambda m: AveragedModel(m).state_dict(),
        lambda m: prefixed("module._orig_mod.", m),
        lambda m: {n: v + 1 for n, v in m.state_dict().items()} | prefixed("ema_model.", m),
    ],
)
def test_a_network_of_ours_comes_with_its_parts(
    wrap: Callable[[nn.Module], Any], tmp_path: Path
) -> None:
    settings = NetworkSettings("bypass", "resnet18", TINY, image_size=32)
    first = MPM(torch.ones(4, 6, dtype=torch.bool), settings)
    trained(first)
    torch.save({"state_dict": wrap(first)}, tmp_path / "mpm.ckpt")
    second = MPM(torch.ones(4, 6, dtype=torch.bool), settings, weights=tmp_path / "mpm.ckpt")
    for name, value in second.state_dict().items():
        assert value.equal(first.state_dict()[name]), name


OWN = {"weight": torch.ones(2), "model.weight": torch.zeros(2), "module.bias": torch.ones(1)}


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "model.module.model."])
def test_a_network_may_have_such_names_itself(prefix: str) -> None:
    state = {prefix + name: value for name, value in OWN.items()}
    found = undo_prefixes(state, list(OWN), "net.pt")
    assert {name: value.tolist() for name, value in found.known.items()} == {
        name: value.tolist() for name, value in OWN.items()
    }
    assert not found.others


def test_counters_that_the_network_has_are_loaded() -> None:
    state = {"model.step": torch.tensor(3), "model.weight": torch.ones(2)}
    assert undo_prefixes(state, ["step", "weight"], "net.pt").known.keys() == {"step", "weight"}
