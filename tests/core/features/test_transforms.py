"""Transforms are exact, invertible and merged where they are the same."""

from __future__ import annotations

import itertools

import pytest
import torch

from napari_hrdv2.core.features.transforms import Copy, Transform, parse_transforms

IMAGE = torch.arange(2 * 5 * 7.0).reshape(2, 5, 7)
SYMMETRIES = [Transform(2, -1, *flags) for flags in itertools.product([0, 1], repeat=3)]


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        ("identity", 1),
        ("shift:1", 9),
        ("shift:1,2", 17),
        ("shift:1,2:neumann", 9),
        ("shift:3,3", 9),
        ("lattice:1", 1),
        ("lattice:4", 16),
        ("flip", 4),
        ("rotate", 4),
        ("flip*rotate", 8),
        ("shift:1,2*flip", 68),
        (" Shift:1 * ROTATE ", 36),
    ],
)
def test_a_specification_names_that_many_distinct_transforms(spec, count):
    chosen = parse_transforms(spec, 14)
    assert len(chosen) == len(set(chosen.copies)) == count
    assert sum(chosen.weights) == pytest.approx(1)


def test_duplicates_become_weights():
    chosen = parse_transforms("shift:1*shift:1:neumann", 14)
    shifts = [copy.shift for copy in chosen.copies]
    weights = dict(zip(shifts, chosen.weights, strict=True))
    # identity: once as itself, and each of four steps there and back
    assert weights[0, 0] == pytest.approx(5 / 45)
    assert weights[2, 0] == pytest.approx(1 / 45)


@pytest.mark.parametrize("first", SYMMETRIES)
@pytest.mark.parametrize("second", [Transform(1, 3), *SYMMETRIES[3:6]])
@pytest.mark.parametrize("boundary", ["periodic"])
def test_a_composition_does_what_its_parts_do_one_after_the_other(
    first, second, boundary
):
    stepwise = second.apply(first.apply(IMAGE, boundary), boundary)
    assert torch.equal(first.then(second).apply(IMAGE, boundary), stepwise)


@pytest.mark.parametrize("transform", SYMMETRIES)
def test_undoing_symmetry_and_shift_gives_the_image_back(transform):
    copy = Copy(transform, transform.inverse())
    moved = transform.apply(IMAGE).movedim(0, -1)
    upright = copy.inverse.apply_symmetry(moved).movedim(-1, 0)
    down, right = copy.shift
    assert torch.equal(torch.roll(upright, (-down, -right), (1, 2)), IMAGE)
    assert copy.shift == transform.shift


@pytest.mark.parametrize("transform", SYMMETRIES)
def test_a_transform_and_its_inverse_do_nothing_in_either_order(transform):
    assert transform.then(transform.inverse()) == Transform()
    assert transform.inverse().then(transform) == Transform()


def test_quarter_turns_are_those_of_torch():
    turned = [
        copy.transform.apply(IMAGE) for copy in parse_transforms("rotate", 14).copies
    ]
    for quarter, image in enumerate(turned):
        assert torch.equal(image, torch.rot90(IMAGE, quarter, (1, 2)))


def test_a_reflected_shift_mirrors_at_the_border():
    image = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    assert Transform(0, 2).apply(image, "reflect").tolist() == [[3, 2, 1, 2]]
    assert Transform(0, -2).apply(image, "reflect").tolist() == [[3, 4, 3, 2]]
    assert Transform(1, 9).apply(torch.ones(1, 1), "reflect").tolist() == [[1]]


def test_a_lattice_covers_the_stride_evenly():
    rows = {copy.shift[0] % 14 for copy in parse_transforms("lattice:4", 14).copies}
    gaps = sorted(rows)
    assert [b - a for a, b in itertools.pairwise([*gaps, gaps[0] + 14])] == [4, 3, 4, 3]


def test_shifts_gather_the_weights_of_their_members():
    chosen = parse_transforms("shift:1*flip", 14)
    shifts = chosen.shifts()
    assert len(shifts) == 9
    assert shifts.weights == pytest.approx([1 / 9] * 9)
    shares = [share for number, _, share in chosen.members() if number == 0]
    assert shares == pytest.approx([1 / 4] * 4)


@pytest.mark.parametrize(
    "spec",
    ["", "shift", "shift:", "shift:-1", "lattice:0", "flip:2", "a*flip", "flip*"],
)
def test_a_wrong_specification_is_refused_with_the_grammar(spec):
    with pytest.raises(ValueError, match=r"transforms: .* use factors joined by"):
        parse_transforms(spec, 14)


def test_a_specification_must_be_a_text():
    with pytest.raises(TypeError, match="transforms: 3 is not a text"):
        parse_transforms(3, 14)


def test_the_published_flips_and_turns_count_some_twice():
    flips = parse_transforms("flip", 14, compat="reference")
    assert sorted(flips.weights) == pytest.approx([1 / 4, 1 / 4, 1 / 2])
    turns = parse_transforms("rotate", 14, compat="reference")
    assert sorted(turns.weights) == pytest.approx([1 / 6, 1 / 6, 1 / 3, 1 / 3])
    shifts = parse_transforms("shift:1,2", 14, compat="reference")
    assert shifts.copies == parse_transforms("shift:1,2", 14).copies
