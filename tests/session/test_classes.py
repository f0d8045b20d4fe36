import colorsys

from napari_hrdv2.session import ClassInfo, default_classes, default_color
from napari_hrdv2.session.classes import merged_classes


def test_many_classes_have_many_colors():
    assert len({default_color(class_id) for class_id in range(1, 40)}) == 39


def test_the_eighth_color_is_not_like_the_first():
    first, eighth = (
        colorsys.rgb_to_hsv(*bytes.fromhex(default_color(i)[1:]))[0] for i in (1, 8)
    )
    assert abs(first - eighth) > 0.2


def test_merging_adds_ids_in_order_and_takes_names_over():
    merged = merged_classes(default_classes(), (9, 4, 0), names={4: "pore"})
    assert list(merged) == [1, 2, 4, 9]
    assert merged[4] == ClassInfo("pore", default_color(4))


def test_merging_keeps_what_it_is_given():
    classes = {1: ClassInfo("matrix", "#111111")}
    merged_classes(classes, (2,), colors={1: "#222222"})
    assert classes == {1: ClassInfo("matrix", "#111111")}
