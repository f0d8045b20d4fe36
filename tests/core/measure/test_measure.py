from __future__ import annotations

import csv

import numpy as np
import pytest
from scipy import stats
from scipy.ndimage import gaussian_filter
from skimage.measure import regionprops_table

from napari_hrdv2.core.measure import (
    combined_fractions,
    particle_table,
    phase_fractions_with_error,
    write_fractions_csv,
)


def random_field(side: int, correlation: float, fraction: float, seed: int):
    """Labels 1 and 2 of a periodic field in which 2 has exactly that fraction."""
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.standard_normal((side, side)), correlation, mode="wrap")
    return np.where(field > np.quantile(field, 1 - fraction), 2, 1)


def ellipse(a: float, b: float, degrees: float, shape=(141, 161)) -> np.ndarray:
    """One object with these half axes, turned counter-clockwise as one sees it."""
    rows, columns = np.indices(shape)
    x, y = columns - 80, 70 - rows
    angle = np.radians(degrees)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    return ((along / a) ** 2 + (across / b) ** 2 <= 1).astype(np.int32)


def row(table, index: int = 0) -> dict[str, float]:
    return {name: values[index] for name, values in table.columns.items()}


def test_fractions_are_of_the_area_that_is_labelled_and_not_excluded() -> None:
    labels = np.array([[1, 1, 2, 2, 0], [1, 2, 2, 2, 0], [2, 2, 2, 2, 2]])
    exclusion = np.zeros(labels.shape, bool)
    exclusion[2] = True
    found = phase_fractions_with_error(labels, [2, 1, 9], exclusion=exclusion)
    assert [phase.fraction for phase in found.phases] == [5 / 8, 3 / 8, 0]
    assert [phase.pixels for phase in found.phases] == [5, 3, 0]
    assert found.pixels == 8
    assert found.phases[2].error is None
    assert "two-point correlation" in found.method


def test_a_class_that_is_everywhere_has_no_error_bar() -> None:
    (phase,) = phase_fractions_with_error(np.full((9, 7), 3), [3]).phases
    assert (phase.fraction, phase.error, phase.interval) == (1, None, None)


def test_with_independent_pixels_the_error_is_that_of_the_binomial() -> None:
    labels = np.random.default_rng(0).choice([1, 2], (201, 203), p=[0.8, 0.2])
    phase = phase_fractions_with_error(labels, [2]).phases[0]
    binomial = 1.96 * np.sqrt(0.2 * 0.8 / labels.size)
    assert phase.error == pytest.approx(binomial, rel=0.15)


@pytest.mark.parametrize(("correlation", "fraction"), [(2, 0.5), (4, 0.1), (6, 0.3)])
def test_the_true_fraction_lies_within_the_bar_as_often_as_it_says(
    correlation: float, fraction: float
) -> None:
    fields = np.stack([random_field(800, correlation, fraction, s) for s in (0, 1)])
    windows = fields.reshape(10, 160, 5, 160).swapaxes(1, 2).reshape(50, 160, 160)
    phases = [phase_fractions_with_error(one, [2]).phases[0] for one in windows]
    off = np.array([phase.fraction - fraction for phase in phases])
    errors = np.array([phase.error for phase in phases])
    assert (np.abs(off) <= errors).mean() >= 0.85
    # Nor may it be won by bars that are far too long.
    assert errors.mean() < 1.5 * 1.96 * off.std()


def test_the_error_is_as_large_for_large_images_that_are_summed_to_cells() -> None:
    field = random_field(640, 8, 0.3, seed=0)
    large = phase_fractions_with_error(field, [2]).phases[0]
    small = phase_fractions_with_error(field[::2, ::2], [2]).phases[0]
    assert large.error == pytest.approx(small.error, rel=0.1)


def test_structures_twice_as_coarse_double_the_error() -> None:
    fine = phase_fractions_with_error(random_field(400, 2, 0.5, 1), [2]).phases[0]
    coarse = phase_fractions_with_error(random_field(400, 4, 0.5, 1), [2]).phases[0]
    assert coarse.error == pytest.approx(2 * fine.error, rel=0.25)


def test_excluding_half_of_the_image_lengthens_the_bar() -> None:
    field = random_field(300, 3, 0.4, seed=2)
    exclusion = np.zeros(field.shape, bool)
    exclusion[:, 150:] = True
    whole = phase_fractions_with_error(field, [2]).phases[0]
    half = phase_fractions_with_error(field, [2], exclusion=exclusion).phases[0]
    cropped = phase_fractions_with_error(field[:, :150], [2]).phases[0]
    assert half.error == pytest.approx(cropped.error, rel=0.05)
    assert half.error == pytest.approx(np.sqrt(2) * whole.error, rel=0.2)


@pytest.mark.parametrize("shape", [(1, 2), (1, 40), (3, 3), (37, 5)])
def test_tiny_and_odd_images_have_finite_bars_and_intervals_in_0_to_1(shape) -> None:
    labels = np.ones(shape, int)
    labels[0, 0] = 2
    for phase in phase_fractions_with_error(labels, [1, 2]).phases:
        low, high = phase.interval
        assert 0 <= low <= phase.fraction <= high <= 1
        assert np.isfinite(phase.error)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="labels: no pixel is left to measure"):
        phase_fractions_with_error(np.zeros((4, 4), int), [1])
    with pytest.raises(ValueError, match=r"classes: \[0, 1\] are not different"):
        phase_fractions_with_error(np.ones((4, 4), int), [0, 1])
    with pytest.raises(ValueError, match="is not a label image"):
        phase_fractions_with_error(np.full((4, 4), np.nan), [1])


def test_images_together_are_weighted_by_area_with_the_scatter_as_error() -> None:
    images = [np.repeat([1, 2], [n, 100 - n]).reshape(10, 10) for n in (20, 30, 70)]
    each = [phase_fractions_with_error(image, [1, 2]) for image in images]
    together = combined_fractions(each)
    first = together.phases[0]
    assert first.fraction == pytest.approx(0.4)
    scatter = stats.t.ppf(0.975, 2) * np.std([0.2, 0.3, 0.7], ddof=1) / np.sqrt(3)
    assert first.error == pytest.approx(scatter)
    assert (first.pixels, together.pixels, together.images) == (120, 300, 3)
    assert "scatter between 3 images" in together.method
    heavier = combined_fractions(each, areas=[1, 1, 8])
    assert heavier.phases[0].fraction == pytest.approx(0.61)


def test_one_image_alone_stays_as_it_is_and_others_must_fit() -> None:
    one = phase_fractions_with_error(random_field(50, 2, 0.5, 0), [1, 2])
    other = phase_fractions_with_error(random_field(50, 2, 0.5, 0), [1])
    assert combined_fractions([one]) is one
    with pytest.raises(ValueError, match=r"images: their classes differ, \[1, 2\]"):
        combined_fractions([one, other])
    with pytest.raises(ValueError, match="images: there are none"):
        combined_fractions([])
    with pytest.raises(ValueError, match=r"areas: \[1\] are not the areas of 2"):
        combined_fractions([one, one], areas=[1])


def test_a_disk_measures_as_a_disk() -> None:
    table = particle_table(ellipse(30, 30, 0), pixel_size=(0.5, "µm"))
    disk = row(table)
    assert disk["area"] == pytest.approx(np.pi * 15**2, rel=0.01)
    assert disk["equivalent diameter"] == pytest.approx(30, rel=0.01)
    assert disk["major axis"] == pytest.approx(30, rel=0.01)
    assert disk["aspect ratio"] == pytest.approx(1)
    assert np.isnan(disk["orientation"])
    assert (disk["centroid x"], disk["centroid y"]) == pytest.approx((40, 35))
    assert not disk["touches border"]


@pytest.mark.parametrize("degrees", [0, 20, 45, 90, 120, 179])
def test_an_ellipse_has_its_axes_and_turns_counter_clockwise(degrees: float) -> None:
    found = row(particle_table(ellipse(40, 20, degrees)))
    assert found["major axis"] == pytest.approx(80, rel=0.01)
    assert found["minor axis"] == pytest.approx(40, rel=0.01)
    assert found["aspect ratio"] == pytest.approx(2, rel=0.01)
    assert abs((found["orientation"] - degrees + 90) % 180 - 90) < 0.5
    assert 0 <= found["orientation"] < 180


def test_a_rectangle_has_the_moments_of_a_rectangle() -> None:
    labels = np.zeros((20, 30), int)
    labels[4:8, 5:15] = 6
    found = row(particle_table(labels))
    axes = 4 / np.sqrt(12) * np.array([10, 4])
    assert (found["major axis"], found["minor axis"]) == pytest.approx(axes)
    assert (found["label"], found["area"], found["orientation"]) == (6, 40, 0)
    assert (found["centroid x"], found["centroid y"]) == (9.5, 5.5)


def test_the_table_agrees_with_regionprops() -> None:
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 9, (6, 7)), np.ones((5, 4), int))
    image = rng.random(labels.shape)
    names = ("label", "area", "equivalent_diameter_area", "axis_major_length")
    names += ("axis_minor_length", "centroid", "orientation", "intensity_mean")
    theirs = regionprops_table(labels, image, properties=names)
    ours = particle_table(labels, image=image).columns
    for mine, other in [
        ("label", "label"),
        ("area", "area"),
        ("equivalent diameter", "equivalent_diameter_area"),
        ("centroid y", "centroid-0"),
        ("centroid x", "centroid-1"),
        ("mean intensity", "intensity_mean"),
    ]:
        np.testing.assert_allclose(ours[mine], theirs[other], err_msg=mine)
    for axis in ("major", "minor"):
        # For them a pixel is a point, for us a square.
        square = np.sqrt(theirs[f"axis_{axis}_length"] ** 2 + 16 / 12)
        np.testing.assert_allclose(ours[f"{axis} axis"], square)
    # Theirs counts counter-clockwise from the columns' direction.
    turned = (np.degrees(theirs["orientation"]) + 90) % 180
    np.testing.assert_allclose(ours["orientation"], turned)


@pytest.mark.parametrize("pixel_size", [None, (0.5, "µm")])
def test_boxes_are_the_first_and_last_rows_and_columns_in_pixels(pixel_size) -> None:
    rng = np.random.default_rng(1)
    labels = rng.choice([0, 0, 0, 2, 5, 9], (23, 31)) * (rng.random((23, 31)) < 0.02)
    labels[7, 11] = 4  # of one pixel
    table = particle_table(labels, pixel_size=pixel_size)
    names = ("min row", "min column", "max row", "max column")
    for number, label in enumerate(table.columns["label"]):
        rows, columns = np.nonzero(labels == label)
        slow = (rows.min(), columns.min(), rows.max(), columns.max())
        assert tuple(table.columns[name][number] for name in names) == slow
    assert table.headers[-4:] == [f"{name} (px)" for name in names]


def test_pixels_that_are_not_square_are_measured_as_they_are() -> None:
    disk = ellipse(40, 40, 0)[::2]  # pixels twice as high as wide
    found = row(particle_table(disk, pixel_size=((2.0, 1.0), "nm")))
    assert found["aspect ratio"] == pytest.approx(1, abs=0.01)
    assert found["equivalent diameter"] == pytest.approx(80, rel=0.01)
    assert (found["centroid x"], found["centroid y"]) == pytest.approx((80, 70))


def test_a_single_pixel_is_a_round_object() -> None:
    labels = np.zeros((3, 3), int)
    labels[1, 1] = 1
    found = row(particle_table(labels))
    assert (found["area"], found["aspect ratio"]) == (1, 1)
    assert np.isnan(found["orientation"])


def test_objects_at_the_border_can_be_dropped() -> None:
    labels = np.zeros((9, 9), int)
    labels[0, 0], labels[3:5, 3:5], labels[7, 4] = 1, 2, 3
    exclusion = np.zeros((9, 9), bool)
    exclusion[8] = True
    table = particle_table(labels, exclusion=exclusion)
    assert table.columns["touches border"].tolist() == [True, False, True]
    assert table.without_border().columns["label"].tolist() == [2]


def test_no_objects_make_a_table_without_rows() -> None:
    table = particle_table(np.zeros((5, 6), int), image=np.zeros((5, 6)))
    assert len(table) == 0
    counts, edges = table.histogram("area", 4)
    assert (counts.tolist(), len(edges)) == ([0] * 4, 5)
    assert len(table.without_border()) == 0


def test_a_histogram_counts_what_has_a_value() -> None:
    labels = np.zeros((9, 30), int)
    labels[1, 1], labels[3, 3:13], labels[5:7, 3:13] = 1, 2, 3
    table = particle_table(labels, pixel_size=(2, "nm"))
    counts, edges = table.histogram("area", 2)
    assert counts.tolist() == [2, 1]
    assert edges.tolist() == [4, 42, 80]
    assert table.histogram("orientation", 3)[0].sum() == 2
    assert table.header("area") == "area (nm²)"
    with pytest.raises(ValueError, match="column: there is no 'volume'; there are"):
        table.histogram("volume")
    with pytest.raises(ValueError, match="bins: 0"):
        table.histogram("area", 0)


def test_the_table_of_particles_comes_back_from_its_file(tmp_path) -> None:
    labels = np.zeros((9, 30), int)
    labels[1, 1], labels[3, 3:13] = 1, 2
    table = particle_table(labels, pixel_size=(0.1, "µm"))
    path = tmp_path / "particles.csv"
    table.write_csv(path)
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == table.headers
    assert "area (µm²)" in rows[0]
    assert "orientation (°)" in rows[0]
    assert float(rows[1]["area (µm²)"]) == table.columns["area"][1]
    assert [line["orientation (°)"] for line in rows] == ["", "0.0"]
    assert rows[0]["touches border"] == "false"


def test_the_fractions_come_back_from_their_file(tmp_path) -> None:
    one = phase_fractions_with_error(random_field(60, 2, 0.25, 0), [2, 5])
    path = tmp_path / "fractions.csv"
    write_fractions_csv(path, {"a, b.tif": one}, class_names={2: "größte"})
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [line["name"] for line in rows] == ["größte", "class 5"]
    assert {line["image"] for line in rows} == {"a, b.tif"}
    assert float(rows[0]["fraction"]) == one.phases[0].fraction
    assert [line["error (half width, 95 %)"] for line in rows][1] == ""
    assert rows[0]["area (px²)"] == "900"
    assert "two-point correlation" in rows[0]["how the error was made"]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path) -> None:
    table = particle_table(np.eye(4, dtype=int))
    with pytest.raises(OSError, match="could not be written"):
        table.write_csv(tmp_path / "nowhere" / "particles.csv")


@pytest.mark.parametrize("size", [0.0, -1, float("nan"), (1.0, 0.0)])
def test_pixel_sizes_that_cannot_be_are_refused(size) -> None:
    with pytest.raises(ValueError, match="pixel_size: .* is not a size above 0"):
        particle_table(np.eye(4, dtype=int), pixel_size=(size, "µm"))


def test_images_and_masks_must_fit_the_objects() -> None:
    with pytest.raises(ValueError, match=r"image: shape \(4, 4, 3\) does not fit"):
        particle_table(np.eye(4, dtype=int), image=np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match=r"exclusion: shape \(3, 4\)"):
        particle_table(np.eye(4, dtype=int), exclusion=np.zeros((3, 4), bool))
