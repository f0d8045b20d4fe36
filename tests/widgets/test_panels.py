"""The table of panels, and the controls that they are made of."""

import sys

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QWidget

from napari_hrdv2.widgets import panels
from napari_hrdv2.widgets.panels.controls import Section, push_button

TOY = '''
"""How many images there are, as a panel."""

from qtpy.QtWidgets import QLabel

from napari_hrdv2.widgets.panels import PanelSpec


class ToyPanel(QLabel):
    def __init__(self, session):
        super().__init__(f"{len(session.images)} images", objectName="toy")

    def release(self):
        self.setText("released")


PANELS = (
    PanelSpec("toy", "Paint", 50, lambda c: ToyPanel(c.session), "A new panel"),
)
'''


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """A module that is put into the folder of panels, and nothing else."""
    (tmp_path / "toy_panel.py").write_text(TOY)
    monkeypatch.setattr(panels, "__path__", [*panels.__path__, str(tmp_path)])
    yield
    sys.modules.pop("napari_hrdv2.widgets.panels.toy_panel", None)
    vars(panels).pop("toy_panel", None)


def test_a_new_panel_is_one_file(toy, bench):
    label = bench.widget.findChild(QLabel, "toy")
    assert label.text() == "0 images"  # no image is worked on while it is made
    assert bench.widget.toy is label
    bench.widget.sections["toy"].toggleButton().click()
    assert not label.isHidden()
    bench.controller.close()
    assert label.text() == "released"


def test_panels_stand_in_sections_in_their_order():
    names = [spec.name for spec in panels.panel_specs()]
    assert names == [
        *("features", "scale", "images", "insight", "looking"),
        "paint",
        *("result", "refine", "measure", "compare", "files", "apply"),
    ]


def test_a_panel_that_is_not_there_is_no_attribute(bench):
    with pytest.raises(AttributeError, match="no attribute 'toy'"):
        _ = bench.widget.toy


def test_a_section_folds_by_mouse_and_by_keyboard(qtbot):
    content = QWidget()
    section = Section("More", "more", content)
    qtbot.addWidget(section)
    section.show()
    button = section.toggleButton()
    assert (button.objectName(), button.text()) == ("more", "▸  More")
    assert content.isHidden()
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert not content.isHidden()
    assert button.text() == "▾  More"
    assert button.focusPolicy() & Qt.FocusPolicy.TabFocus
    qtbot.keyClick(button, Qt.Key.Key_Space)
    assert content.isHidden()


def test_what_is_in_a_section_may_grow_while_it_is_open(qtbot):
    inner = Section("Inner", "inner", QLabel("a\nb\nc\nd\ne"))
    outer = Section("Outer", "outer", inner, is_open=True)
    qtbot.addWidget(outer)
    outer.show()
    before = outer.sizeHint().height()
    inner.toggleButton().click()
    assert outer.sizeHint().height() > before
    assert inner.content().height() >= inner.content().minimumSizeHint().height()


def test_a_button_tells_what_it_calls(qtbot):
    def erase():
        """Erase it.

        It can be undone.
        """

    button = push_button("Erase", "erase", erase)
    qtbot.addWidget(button)
    assert button.toolTip() == "Erase it. It can be undone"
