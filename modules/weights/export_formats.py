"""Trained classifiers for other runtimes: ONNX and `torch.export`, checked when written."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from datamodules.files.atomic_files import written_whole
from datamodules.files.errors import UserError

INPUT = (
    "images: float32, (batch, 3, {size}, {size}), RGB, values in [0, 1]; "
    "the normalisation is part of the network"
)
TOLERANCE = 1e-4


def export_onnx(
    classifier: nn.Module, path: Path, image_size: int, metadata: Mapping[str, str]
) -> float:
    """Writes an ONNX file with a free batch size and compares it with the network in onnxruntime.

    Args:
        classifier: network of pixels in [0, 1], in eval mode, on the CPU.
        path: file to write; it appears only once the comparison is passed.
        image_size: side of the square input, pixels.
        metadata: goes into the file beside the description of the input.

    Returns:
        The largest difference of a logit.

    Raises:
        UserError: if packages are missing, the network cannot be written, or logits differ by
            more than `TOLERANCE`, or that share of the largest logit where it is above 1.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"ONNX needs a package ({error.name}): pip install onnx onnxruntime onnxscript"
        ) from None
    try:
        program = torch.onnx.export(
            classifier,
            (_images(2, image_size),),
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise UserError(f"this network has no ONNX form ({str(error).splitlines()[0]})") from error
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, _described(image_size, metadata))
    onnx.checker.check_model(model)
    with written_whole(path) as partial:
        onnx.save(model, partial)
        session = onnxruntime.InferenceSession(str(partial), providers=["CPUExecutionProvider"])

        def run(images: Tensor) -> Tensor:
            return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])

        return _compare(run, classifier, path.name, image_size)


def export_program(
    classifier: nn.Module, path: Path, image_size: int, metadata: Mapping[str, str]
) -> float:
    """Writes a `torch.export` program with a free batch size and compares it with the network.

    `torch.export.load(path).module()` needs none of our code. Arguments, return value and errors
    are those of `export_onnx`.
    """
    dynamic = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(classifier, (_images(2, image_size),), dynamic_shapes=dynamic)
    described = json.dumps(_described(image_size, metadata))
    with written_whole(path) as partial:
        # an open file, as torch wants the ending .pt2 of a name
        with partial.open("wb") as file:
            torch.export.save(program, file, extra_files={"metadata.json": described})
        with partial.open("rb") as file:
            loaded = torch.export.load(file).module()
        return _compare(loaded, classifier, path.name, image_size)


@torch.no_grad()
def _compare(
    exported: Callable[[Tensor], Tensor], classifier: nn.Module, name: str, image_size: int
) -> float:
    """The largest difference of a logit, at batch sizes other than the traced one."""
    difference = scale = 0.0
    for batch in (1, 3):
        images = _images(batch, image_size)
        logits = classifier(images)
        difference = max(difference, (exported(images) - logits).abs().max().item())
        scale = max(scale, logits.abs().max().item())
    if not difference <= TOLERANCE * max(1.0, scale):
        raise UserError(
            f"{name} gives other logits than the network, by {difference:.2g} where the "
            f"largest is {scale:.3g}"
        )
    return difference


def _images(batch: int, image_size: int) -> Tensor:
    return torch.rand(batch, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))


def _described(image_size: int, metadata: Mapping[str, str]) -> dict[str, str]:
    return {
        **metadata,
        "input": INPUT.format(size=image_size),
        "output": "logits: (batch, classes)",
    }
