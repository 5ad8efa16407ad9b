"""Random damages to the tiny data set of `annotated.py`."""

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from tests.datamodules.annotations.annotated import cat_content

DAMAGED = settings(
    derandomize=True,
    deadline=None,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

NUMBERS = st.one_of(
    st.integers(-3, 60),
    st.sampled_from([0, -1, 2**31, 2**32, 2**63, 2**64, 10**30, 10**400, -(10**20)]),
    st.floats(allow_nan=True, allow_infinity=True),
)
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=5))
JUNK = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to all values below a JSON value."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


@st.composite
def damaged_contents(draw: st.DrawFn) -> Any:
    """The sound content after one to three random damages."""
    content: Any = cat_content()
    for _ in range(draw(st.integers(1, 3))):
        paths = list(places(content))
        if not paths:
            break
        *above, key = draw(st.sampled_from(paths))
        parent = content
        for step in above:
            parent = parent[step]
        match draw(st.sampled_from(["drop", "replace", "number", "swap", "repeat", "nest"])):
            case "drop":
                del parent[key]
            case "replace":
                parent[key] = draw(JUNK)
            case "number":
                parent[key] = draw(NUMBERS)
            case "nest":
                parent[key] = [parent[key]]
            case "repeat" if isinstance(parent, list):
                parent.append(copy.deepcopy(parent[key]))
            case "swap":
                _swap(draw, content, paths, key)
    return content


def _swap(draw: st.DrawFn, content: Any, paths: list[tuple[Any, ...]], key: Any) -> None:
    """Exchanges two values under the same key, such as the image ids of two annotations."""
    alike = [path for path in paths if path[-1] == key]
    ends = []
    for path in (draw(st.sampled_from(alike)), draw(st.sampled_from(alike))):
        parent = content
        for step in path[:-1]:
            parent = parent[step]
        ends.append(parent)
    if all(not isinstance(end[key], dict | list) for end in ends):
        ends[0][key], ends[1][key] = ends[1][key], ends[0][key]
