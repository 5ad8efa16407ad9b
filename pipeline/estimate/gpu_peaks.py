"""Peak speed of GPUs, from NVIDIA's data sheets, to tell what share of it a step reaches."""

# TFLOP/s without sparsity: matrix products of 16-bit floats with float32 sums, and of float32
# (TF32 where the GPU has it). The first name that is part of the device's name counts.
# Source: NVIDIA's data sheets of these products.
PEAKS: tuple[tuple[str, float, float], ...] = (
    ("B200", 2250.0, 1125.0),
    ("GH200", 989.4, 494.7),
    ("H200", 989.4, 494.7),
    ("H100 PCIe", 756.0, 378.0),
    ("H100 NVL", 835.0, 417.5),
    ("H100", 989.4, 494.7),
    ("A100", 312.0, 156.0),
    ("A800", 312.0, 156.0),
    ("A40", 149.7, 74.8),
    ("A30", 165.0, 82.0),
    ("A10G", 70.0, 35.0),
    ("A10", 125.0, 62.5),
    ("L40S", 362.0, 183.0),
    ("L40", 181.0, 90.5),
    ("L4", 121.0, 60.0),
    ("V100", 125.0, 15.7),
    ("T4", 65.0, 8.1),
    ("RTX A6000", 154.8, 77.4),
    ("RTX 4090", 165.2, 82.6),
    ("RTX 3090", 71.0, 35.6),
)


def peak_tflops(device_name: str, precision: str) -> float | None:
    """Peak TFLOP/s of a GPU for matrix products in a precision; None if it is not in the table.

    Args:
        device_name: as `torch.cuda.get_device_name` gives it.
        precision: of Lightning's trainer, such as `bf16-mixed` or `32-true`.
    """
    for name, half, single in PEAKS:
        if name in device_name:
            return half if "16" in precision else single
    return None
