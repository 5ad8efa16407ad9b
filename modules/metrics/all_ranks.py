"""One result on all processes from what each of them holds."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import distributed

Shard = TypeVar("Shard")
Result = TypeVar("Result")


def from_all_ranks(shard: Shard, combine: Callable[[list[Shard]], Result]) -> Result:
    """Gathers objects on rank 0, combines them there and hands the result to everyone.

    All processes must call it; without `torch.distributed` there is one shard.

    Args:
        shard: what this process holds; it is pickled.
        combine: gets the shards in order of rank; called on rank 0 only.

    Returns:
        What `combine` gave, on every rank.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return combine([shard])
    rank, world_size = distributed.get_rank(), distributed.get_world_size()
    shards: list[Any] | None = [None] * world_size if rank == 0 else None
    distributed.gather_object(shard, shards, dst=0)
    result: list[Any] = [None if shards is None else combine(shards)]
    distributed.broadcast_object_list(result, src=0)
    return result[0]
