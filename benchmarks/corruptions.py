"""The 15 corruptions x 5 severities: time per image, and which equal the published generator.

python benchmarks/corruptions.py [--size 224] [--images 3] [--frost-images FOLDER]

Equality is tested against the hashes of the published generator's own images in
tests/datamodules/imagenet_c_hashes.json (one image of 224 px, frost where its overlays are at
hand), and against `imagecorruptions` where that can be imported. Milliseconds are of processor
time on one core, so other work on the machine matters little.
"""

import argparse
import hashlib
import json
import time
import warnings
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from datamodules.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from datamodules.corruptions.frost_overlays import overlay_problem

HASHES = Path(__file__).parent.parent / "tests" / "datamodules" / "imagenet_c_hashes.json"


def synthetic_image(size: int) -> np.ndarray:
    """Gradients, fine texture and a flat patch, of integers alone: uint8 `(size, size, 3)`."""
    y, x = np.mgrid[:size, :size]
    image = np.stack([(x * y) // 197 % 256, (x + 2 * y) // 3 % 256, (255 - (x ^ y)) % 256], axis=2)
    image = image.astype(np.uint8)
    image[60:120, 40:140] = (37, 200, 64)
    return image


def package_difference(image: np.ndarray, name: str, severity: int, ours: np.ndarray) -> str:
    """Largest difference from `imagecorruptions` with the same draws, or why there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from imagecorruptions import corrupt as reference

            # scikit-image draws from a new generator: let it have the old one
            fresh, np.random.default_rng = np.random.default_rng, lambda _=None: np.random  # type: ignore[assignment]
            try:
                np.random.seed(severity)  # noqa: NPY002
                theirs = reference(image, severity, name)
            finally:
                np.random.default_rng = fresh
    except ImportError:
        return "not installed"
    except (AttributeError, TypeError, ValueError) as error:
        return f"fails: {type(error).__name__}"
    return str(int(np.abs(theirs.astype(int) - ours).max()))


def main() -> None:
    """Prints the table; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--images", type=int, default=3, help="runs that are averaged")
    parser.add_argument("--frost-images", type=Path, help="folder of the frost overlays")
    given = parser.parse_args()
    published = json.loads(HASHES.read_text())
    image, large = synthetic_image(given.size), synthetic_image(224)
    frostless = overlay_problem(given.frost_images, max(given.size, 224))
    headings = [f"ms, {severity}" for severity in SEVERITIES]
    table = Table("corruption", *headings, "published", "imagecorruptions")
    rows = {}
    for name in CORRUPTIONS:
        if name == "frost" and frostless:
            table.add_row(name, *["-"] * 5, frostless, "-")
            rows[name] = {"missing": frostless}
            continue
        times, equal, package = [], [], []
        for severity in SEVERITIES:
            outcome = corrupt(large, name, severity, severity, given.frost_images)
            digest = hashlib.sha256(outcome.tobytes()).hexdigest()[:16]
            equal.append(digest == published[name][severity - 1])
            package.append(package_difference(large, name, severity, outcome))
            started = time.process_time()
            for seed in range(given.images):
                corrupt(image, name, severity, seed, given.frost_images)
            times.append(1e3 * (time.process_time() - started) / given.images)
        verdict = "bit-equal" if all(equal) else f"differs in {equal.count(False)} of 5"
        theirs = ", ".join(sorted(set(package)))
        table.add_row(name, *(f"{each:.1f}" for each in times), verdict, theirs)
        rows[name] = {
            "milliseconds": [round(each, 2) for each in times],
            "bit_equal_to_published": equal,
            "largest_difference_from_imagecorruptions": package,
        }
    Console(width=140).print(table)
    whole = [ms for row in rows.values() for ms in row.get("milliseconds", [])]  # type: ignore[attr-defined]
    summary = {
        "size": given.size,
        "corruptions": rows,
        "mean_milliseconds": round(float(np.mean(whole)), 2),
        "bit_equal": sum(all(row.get("bit_equal_to_published", [False])) for row in rows.values()),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
