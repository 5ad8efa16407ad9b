"""AutoAttack attack by attack over a whole chunk, against chunk by chunk, for several batch sizes.

    python benchmarks/autoattack_batches.py [--images 200] [--batches 8 25 100] [--model adv]

Chunk by chunk, as `batch_size: null` does, each batch goes through all attacks alone and shrinks as
images fall. With `batch_size` each attack takes full batches of all images that still stand, as the
package itself does when it is given all at once: its outcomes must be those of one such call, image
by image. Both are timed in turns, in processor time of one thread. Images and networks are those of
`autoattack_overhead.py`.
"""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyautoattack
import torch
from torch import Tensor, nn

from modules.attacks.threats import AutoAttack
from modules.attacks.traced_autoattack import Outcome
from modules.robustness_evaluator import RobustnessEvaluator
from pipeline.drawing.markdown_table import markdown_table

sys.path.insert(0, str(Path(__file__).parent))
from autoattack_overhead import DATA, source

SEED = 7


def one_call(network: nn.Module, images: Tensor, labels: Tensor, eps: float, batch: int) -> Any:
    """What the package gives for all images: adversarial ones and their predictions."""
    attack = pyautoattack.AutoAttack(network, norm="Linf", eps=eps, seed=SEED)
    return attack.run_standard_evaluation(images, labels, batch_size=batch)


def timed(
    network: nn.Module, images: Tensor, labels: Tensor, eps: float, chunk: int, batch: int | None
) -> tuple[float, list[Outcome]]:
    """Processor seconds and outcomes of all chunks."""
    threat = AutoAttack(eps, batch_size=batch)
    started = time.process_time()
    found = [
        threat.outcome(network, *pair, SEED)
        for pair in zip(images.split(chunk), labels.split(chunk), strict=True)
    ]
    return time.process_time() - started, found


def main() -> None:
    """Prints the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 25, 100])
    parser.add_argument("--model", default="adv")
    parser.add_argument("--eps", type=float, default=2.0, help="radius, in 1/255")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    network = RobustnessEvaluator(source(args.model), {}).network.eval()
    pixels = torch.from_numpy(np.load(DATA / "X_sdp.npy")).permute(0, 3, 1, 2).contiguous()
    images, labels = pixels[: args.images], torch.from_numpy(np.load(DATA / "y_sdp.npy")).long()
    labels, eps = labels[: args.images], args.eps / 255
    rows, ratios, equal = [], {}, True
    for batch in args.batches:
        before, alone = timed(network, images, labels, eps, batch, None)
        after, (together,) = timed(network, images, labels, eps, len(images), batch)
        wanted, predictions = one_call(network, images, labels, eps, batch)
        assert together.predictions is not None
        equal &= torch.equal(together.images, wanted)
        equal &= torch.equal(together.predictions, predictions)
        standing = [sum(not name for name in one.broken_by or []) for one in (*alone, together)]
        ratios[batch] = before / after
        rates = [f"{len(images) / seconds:.2f}" for seconds in (before, after)]
        robust = f"{sum(standing[:-1])} / {standing[-1]}"
        rows.append((str(batch), *rates, f"{ratios[batch]:.2f}", robust))
        print(*rows[-1], sep="  ", flush=True)
    header = ("batch", "images/s, chunk by chunk", "attack by attack", "ratio", "standing")
    print(markdown_table(header, rows, numbers=5))
    print(json.dumps({"outcomes_equal": equal, "ratios": ratios}))


if __name__ == "__main__":
    main()
