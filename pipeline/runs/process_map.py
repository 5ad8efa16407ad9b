"""Work on many independent pieces with several processes."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from rich.progress import track

Task = TypeVar("Task")
Result = TypeVar("Result")


def work_through(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int, description: str
) -> Iterator[Result]:
    """Results of `function` for all tasks, in order, with a bar that shows the time left.

    Args:
        function: what to do, importable by its name.
        tasks: its arguments; after an error no further ones are begun.
        workers: processes; with one, all happens in this process.
        description: of the bar.
    """
    if workers <= 1 or len(tasks) <= 1:
        yield from track(map(function, tasks), description, len(tasks))
        return
    # a fork of this process would lack its threads, a fresh one each would import all anew
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([function.__module__])
    with ProcessPoolExecutor(min(workers, len(tasks)), context) as pool:
        yield from track(pool.map(function, tasks), description, len(tasks))
