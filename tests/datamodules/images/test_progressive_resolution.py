import pytest

from datamodules.images.progressive_resolution import ProgressiveResolution


@pytest.mark.parametrize(
    ("full", "epochs", "sides"),
    [
        (224, 10, [96, 128, 128, 160, 160, 192, 224, 224, 224, 224]),
        (96, 8, [32, 32, 64, 64, 64, 96, 96, 96]),
        (64, 6, [32] * 4 + [64] * 2),
        (64, 12, [32] * 8 + [64] * 4),
        (72, 4, [32, 32, 64, 72]),  # the end is the full side, whatever it is
        (16, 2, [16, 16]),
        (224, 1, [96]),
    ],
)
def test_sides_grow_by_whole_cells_to_the_full_one(
    full: int, epochs: int, sides: list[int]
) -> None:
    assert ProgressiveResolution(start=0.5, until=0.6).sides(full, epochs) == sides


def test_no_ramp_is_the_full_side_throughout() -> None:
    assert ProgressiveResolution(start=1.0, until=0.5).sides(224, 3) == [224] * 3


@pytest.mark.parametrize("epochs", [None, -1])
def test_a_course_without_an_end_is_refused(epochs: int | None) -> None:
    with pytest.raises(ValueError, match=r"set trainer\.max_epochs"):
        ProgressiveResolution().sides(224, epochs)


@pytest.mark.parametrize(("start", "until"), [(0.0, 0.5), (1.1, 0.5), (0.5, 0.0), (0.5, 1.1)])
def test_shares_out_of_range_are_named(start: float, until: float) -> None:
    with pytest.raises(
        ValueError, match=f"progressive.start={start} and progressive.until={until}"
    ):
        ProgressiveResolution(start, until)
