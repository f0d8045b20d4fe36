import numpy as np
from qtpy.QtWidgets import QAbstractButton


def test_before_anything_it_says_that_there_is_nothing(bench):
    assert bench.widget.result.fractions.text() == "No segmentation yet."


def test_fractions_are_those_of_what_is_shown(bench):
    bench.segment()
    bench.session.classes.rename(1, "a < b")
    share = np.mean(bench.viewer.layers["Segmentation: Image"].data == 1)
    assert f"a &lt; b&nbsp;{share:.1%}" in bench.widget.result.fractions.text()


def test_deleting_a_class_with_a_result_is_no_error(bench):
    bench.segment()
    bench.session.delete_class(2)
    bench.settle()
    assert "Class 2" not in bench.widget.result.fractions.text()


def test_refining_and_measuring_are_folded_away_at_first(bench):
    buttons = {b.objectName(): b for b in bench.widget.findChildren(QAbstractButton)}
    for name in ("refine", "measure"):
        part = bench.widget.panels[name]
        assert part.isHidden()
        buttons[f"{name}_fold"].click()
        assert not part.isHidden()


def test_the_panels_fit_a_narrow_dock(bench):
    panels = bench.widget.panels
    panels["refine"].smoothing.setCurrentIndex(1)
    panels["refine"].smoothing.activated.emit(1)
    panels["measure"].particles._found.show()
    for name in ("result", "refine", "measure"):
        panels[name].show()
        assert panels[name].minimumSizeHint().width() <= 330
