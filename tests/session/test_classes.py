import colorsys

import pytest

from napari_hrdv2.session import Classes, ClassInfo, default_color


def test_many_classes_have_many_colors():
    assert len({default_color(class_id) for class_id in range(1, 40)}) == 39


def test_the_eighth_color_is_not_like_the_first():
    first, eighth = (
        colorsys.rgb_to_hsv(*bytes.fromhex(default_color(i)[1:]))[0] for i in (1, 8)
    )
    assert abs(first - eighth) > 0.2


def test_ids_are_added_in_order_and_names_taken_over():
    classes = Classes()
    classes.ensure((9, 4, 0), names={4: "pore"})
    assert list(classes) == [1, 2, 4, 9]
    assert classes[4] == ClassInfo("pore", default_color(4))


def test_what_is_there_is_kept():
    classes = Classes({1: ClassInfo("matrix", "#111111")})
    classes.ensure((1, 2))
    assert classes[1] == ClassInfo("matrix", "#111111")


def test_a_class_added_gets_the_next_free_id():
    classes = Classes()
    assert classes.add("pore") == 3
    assert classes[3].name == "pore"


def test_names_are_trimmed_and_must_differ():
    classes = Classes()
    classes.rename(1, "  grey   matrix ")
    assert classes[1].name == "grey matrix"
    with pytest.raises(ValueError, match="'grey matrix' is the name of class 1"):
        classes.rename(2, "grey matrix")
    with pytest.raises(ValueError, match="needs a name"):
        classes.rename(2, "  ")


def test_a_color_must_be_one():
    classes = Classes()
    classes.recolor(2, "#AABBCC")
    assert classes[2].color == "#aabbcc"
    with pytest.raises(ValueError, match="'red' is none"):
        classes.recolor(2, "red")


def test_another_order_keeps_the_ids():
    classes = Classes()
    classes.add("pore")
    classes.move(3, 0)
    assert list(classes) == [3, 1, 2]
    assert classes[3].name == "pore"


def test_listeners_hear_of_changes_only():
    classes, heard = Classes(), []
    classes.changed.connect(lambda: heard.append(list(classes)))
    classes.ensure((1, 2))
    classes.move(1, 0)
    assert heard == []
    classes.move(1, 1)
    classes.remove(2)
    assert heard == [[2, 1], [1]]


def test_a_removed_class_comes_back_as_it_was():
    classes = Classes()
    classes.rename(2, "pore")
    classes.recolor(2, "#102030")
    classes.remove(2)
    classes.ensure([2])
    assert classes[2] == ClassInfo("pore", "#102030")


def test_a_name_that_was_taken_meanwhile_does_not_come_back():
    classes = Classes()
    classes.rename(2, "pore")
    classes.remove(2)
    classes.rename(1, "pore")
    classes.ensure([2])
    assert classes[2].name == "Class 2"


def test_a_new_class_has_no_label_of_a_removed_one():
    classes = Classes()
    classes.remove(2)
    assert classes.add() == 3


@pytest.mark.parametrize("back", [(2, 3), (3, 2)])
def test_classes_that_come_back_have_their_former_rows(back):
    classes = Classes()
    classes.ensure(range(1, 5))
    classes.move(4, 0)
    former = dict(classes)
    classes.remove(2)
    classes.remove(3)
    for class_id in back:
        classes.ensure([class_id])
    assert list(classes.items()) == list(former.items())


def test_a_class_comes_back_between_those_that_were_moved_meanwhile():
    classes = Classes()
    classes.ensure(range(1, 5))
    classes.remove(2)
    classes.move(4, 0)
    assert list(classes) == [4, 1, 3]
    classes.ensure([2])
    assert list(classes) == [4, 2, 1, 3]
    classes.add("new")
    assert list(classes) == [4, 2, 1, 3, 5]


def test_a_class_that_was_merged_has_its_row_again_when_that_is_undone(session, labels):
    labels[30:34, 4:12] = 3
    session.set_scribbles(labels)
    session.merge_class(2, 3)
    assert list(session.classes) == [1, 3]
    session.set_scribbles(labels)
    assert list(session.classes) == [1, 2, 3]


def test_a_name_with_half_a_character_becomes_one_that_files_can_hold():
    classes = Classes({1: ClassInfo("a", "#000000")})
    classes.rename(1, "pore \ud800")
    classes.ensure([2], names={2: "\udfff rim 🌀"})
    classes.restore({**classes, 3: ClassInfo("\ud83c", "#000000")})
    names = [info.name for info in classes.values()]
    assert names == ["pore �", "� rim 🌀", "�"]
