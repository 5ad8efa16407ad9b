"""The rule of imports in `docs/architecture.md`: a room imports from rooms below it alone."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
# Floors of each package, the lowest first; "" are the files at its top.
FLOORS = {
    "datamodules": (
        {"files"},
        {"images", "masks"},
        {"annotations", "corruptions", "detection", "part_shapes"},
        {"labels", "evaluation"},
        {""},
    ),
    "modules": (
        {"losses", "metrics", "optimisation", "probes", "state_dicts"},
        {"attacks", "networks"},
        {"weights"},
        {""},
    ),
    "pipeline": (
        {"runs", "drawing", "published"},
        {"labelling", "validation", "evaluation", "annotations", "export", "label_report"},
        {"scoring", "few_shot"},
        {"report", "browse", "study", ""},
        {"estimate"},
    ),
}
FLOOR = {
    f"{package}.{room}".rstrip("."): number
    for package, floors in FLOORS.items()
    for number, rooms in enumerate(floors)
    for room in rooms
}


def room(module: str) -> str:
    """`modules.attacks` of `modules.attacks.pgd`; the package itself of a file at its top."""
    parts = module.split(".")
    name = ".".join(parts[:2])
    return name if (PROJECT / name.replace(".", "/")).is_dir() else parts[0]


def imports(file: Path) -> Iterator[str]:
    """Modules of the project that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            below = (PROJECT / node.module.replace(".", "/")).is_dir()
            names = [f"{node.module}.{a.name}" for a in node.names] if below else [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in FLOORS)


def arrows() -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for package in FLOORS:
        for file in (PROJECT / package).rglob("*.py"):
            source = room(".".join(file.relative_to(PROJECT).with_suffix("").parts))
            found[source] |= {room(name) for name in imports(file)} - {source}
    return found


def test_every_room_has_a_floor() -> None:
    assert set(arrows()) == set(FLOOR)


def test_rooms_import_rooms_below() -> None:
    upwards = [
        f"{source} -> {target}"
        for source, targets in arrows().items()
        for target in targets
        if source.split(".")[0] == target.split(".")[0] and FLOOR[source] < FLOOR[target]
    ]
    assert not upwards


def test_no_two_rooms_import_each_other() -> None:
    TopologicalSorter(arrows()).prepare()  # raises on a cycle, of any length


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("datamodules", {"datamodules"}),
        ("modules", {"modules", "datamodules.files"}),
    ],
)
def test_packages_keep_apart(package: str, allowed: set[str]) -> None:
    others = {
        target
        for source, targets in arrows().items()
        if source.split(".")[0] == package
        for target in targets
        if target not in allowed and target.split(".")[0] not in allowed
    }
    assert not others
