"""Work on many independent pieces with several processes."""

import multiprocessing
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from datamodules.files.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")


def work_through(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int, description: str
) -> Generator[Result, None, None]:
    """Results of `function` for all tasks, in order, with a bar that shows the time left.

    Closing the generator before its end waits for the tasks that are under way.

    Args:
        function: what to do, importable by its name.
        tasks: its arguments; after an error no further ones are begun.
        workers: processes; with one, all happens in this process.
        description: of the bar, which goes to the error stream.

    Raises:
        UserError: if a process was killed.
    """
    console = Console(stderr=True)
    if workers <= 1 or len(tasks) <= 1:
        yield from track(map(function, tasks), description, len(tasks), console=console)
        return
    # a fork of this process would lack its threads, a fresh one each would import all anew
    context = multiprocessing.get_context("forkserver")
    module = getattr(function, "func", function).__module__  # of a partial, what it calls
    context.set_forkserver_preload([module])
    try:
        with ProcessPoolExecutor(min(workers, len(tasks)), context) as pool:
            results = pool.map(function, tasks)
            yield from track(results, description, len(tasks), console=console)
    except BrokenProcessPool:
        raise UserError(
            "a process was killed, most likely for memory: give fewer --workers"
        ) from None
