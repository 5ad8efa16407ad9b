"""What training codes put before the names of a network's tensors, and its undoing."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from datamodules.files.errors import UserError

# Words of data parallel, compilers and sharding, which stand anywhere in a name.
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# Words that say that the weights below them are averaged.
AVERAGES = ("ema", "ema_model", "model_ema", "module_ema", "averaged_model", "swa_model")
# Names under which training codes hold the network they train.
HOLDERS = ("model", "network", "net", *AVERAGES)
# Scalars that averages keep beside the weights: torch's AveragedModel, timm, ema_pytorch.
_COUNTERS = ("n_averaged", "initted", "step", "decay", "num_updates")
_EXAMPLES = 3


@dataclass
class UndoneNames:
    """Tensors of a file, by the names of the network they are for.

    Attributes:
        known: those that the network has names for, by these names.
        others: those it has not, without the prefix where they have it.
        file_names: names in the file of the others.
        twice: names in the file of tensors that are there again, equal in every value.
        superseded: names in the file of tensors for which an average of the file stands.
    """

    known: dict[str, Tensor] = field(default_factory=dict)
    others: dict[str, Tensor] = field(default_factory=dict)
    file_names: dict[str, str] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)
    superseded: list[str] = field(default_factory=list)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors that are to be used or refused."""
        return self.others | self.known


def undo_prefixes(state: Mapping[str, Tensor], names: Collection[str], source: str) -> UndoneNames:
    """Gives the tensors of a file the names of a network.

    Undone are words of wrappers anywhere in a name (`module.`, `_orig_mod.`, ...), and one prefix
    of any words and depth, below which most of the network's names are found. Counters of averages
    are left out. Of two networks in one file the average is taken; two equal ones are one.

    Args:
        state: tensors by name.
        names: names of the network's tensors.
        source: what the tensors come from, for messages.

    Raises:
        UserError: if the file holds two networks that differ and none of them is an average, or
            tensors of the network beside its prefix.
    """
    wanted = _without_wrappers(names)
    given = {
        name: file_name
        for name, file_name in _without_wrappers(state).items()
        if name.rpartition(".")[2] in wanted or not _is_counter(name, state[file_name])
    }
    prefix, rivals = _prefixes(given, wanted)
    rivals = [rival for rival in rivals if _alike(state, given, wanted, prefix, rival)]
    found = UndoneNames()
    for name, file_name in given.items():
        value, rest = state[file_name], name.removeprefix(prefix)
        if name.startswith(prefix) and rest in wanted:
            found.known[wanted[rest]] = value
            continue
        twins = [(r, prefix + name.removeprefix(r)) for r in rivals if name.startswith(r)]
        rival, twin = next(((r, given[one]) for r, one in twins if one in given), ("", None))
        if twin is None and rest in wanted:
            raise UserError(
                f"{source} holds {file_name}, while the network's other tensors have {prefix} "
                "before their names: save the state dict of one network in a file of its own"
            )
        if twin is None:
            place = file_name if rest in found.others else rest
            found.others[place], found.file_names[place] = value, file_name
        elif state[twin].shape == value.shape and torch.equal(state[twin], value):
            found.twice.append(file_name)
        elif _averages(prefix) > _averages(rival):
            found.superseded.append(file_name)
        else:
            raise UserError(
                f"{source} holds two different networks ({file_name} is not {twin}): save the "
                "state dict of one of them in a file of its own"
            )
    return found


def refuse_foreign_names(
    found: UndoneNames, names: Collection[str], source: str, network: str
) -> None:
    """Refuses tensors of which the network has names for less than half.

    Args:
        found: what `undo_prefixes` made of them.
        names: names of the network's tensors.
        source: what the tensors come from, for the message.
        network: what the network is called, for the message.

    Raises:
        UserError: with three names of either side.
    """
    known = len(found.known)
    if 2 * known >= min(len(names), known + len(found.others)):
        return
    theirs = _telling(found.file_names.values())
    ours = _telling(name for name in names if name not in found.known)
    raise UserError(
        f"{source} names its tensors otherwise than {network}: the file has {', '.join(theirs)}, "
        f"the network {', '.join(ours)}: give the architecture that the file is of, or rename its "
        "tensors"
    )


def _telling(names: Iterable[str]) -> list[str]:
    """A few names, weights first: every batch norm of every network has a counter."""
    return sorted(names, key=lambda name: name.endswith("num_batches_tracked"))[:_EXAMPLES]


def _prefixes(given: Collection[str], wanted: Collection[str]) -> tuple[str, list[str]]:
    """The prefix below which most wanted names are, and those of further copies of them."""
    counts: Counter[str] = Counter()
    for name in given:
        start = 0
        while True:
            if name[start:] in wanted:
                counts[name[:start]] += 1
            start = name.find(".", start) + 1
            if not start:
                break
    most = max(counts.values(), default=0)
    best = [prefix for prefix, count in counts.items() if count == most]
    # an average first, then the outermost
    prefix = min(best, key=lambda p: (-_averages(p), len(p), p), default="")
    if 4 * most <= min(len(wanted), len(given)):
        return prefix, []  # hardly this network's names, so nothing is a second copy of it
    rivals = [p for p, count in counts.items() if p != prefix and 2 * count > most]
    return prefix, sorted(rivals, key=len, reverse=True)


def _alike(
    state: Mapping[str, Tensor],
    given: Mapping[str, str],
    wanted: Collection[str],
    prefix: str,
    rival: str,
) -> bool:
    """Whether most tensors below two prefixes have the same shapes: not so in two layers."""
    pairs = [(given.get(prefix + name), given.get(rival + name)) for name in wanted]
    both = [(state[one].shape, state[other].shape) for one, other in pairs if one and other]
    return 2 * sum(one == other for one, other in both) > len(both)


def _without_wrappers(names: Iterable[str]) -> dict[str, str]:
    """Names without the words of wrappers; as they are where two would become the same."""
    names = list(names)
    found = {
        ".".join(word for word in name.split(".") if word not in WRAPPERS): name for name in names
    }
    return found if len(found) == len(names) else {name: name for name in names}


def _averages(prefix: str) -> int:
    return sum(word in AVERAGES for word in prefix.split("."))


def _is_counter(name: str, value: Tensor) -> bool:
    *place, last = name.split(".")
    containers = (*HOLDERS, *WRAPPERS)
    return last in _COUNTERS and value.numel() == 1 and all(word in containers for word in place)
