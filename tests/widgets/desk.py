"""Viewer and controller without a window: what layers and sliders do needs none."""

import numpy as np
from napari.components import ViewerModel

from napari_hrdv2.widgets.controller import Controller

WAIT = 15_000  # milliseconds; a machine under load is slow


def with_panel(qtbot, spec):
    """Yield a desk with a panel on it."""
    desk = Desk(qtbot)
    desk.panel = spec.make(desk.controller)
    qtbot.addWidget(desk.panel)
    yield desk
    desk.controller.close()


class Desk:
    """A viewer model with a controller, and the hands to work with it."""

    def __init__(self, qtbot):
        self.viewer, self.qtbot = ViewerModel(), qtbot
        self.controller = Controller(self.viewer)
        self.session, self.link = self.controller.session, self.controller.link
        self.errors = []
        self.link.refused.connect(self.errors.append)
        self.session.configure(backbone="filters")

    def wait(self, condition):
        self.qtbot.waitUntil(condition, timeout=WAIT)

    def settle(self):
        """Wait until layers and scribbles are read and nothing is being computed."""
        self.qtbot.wait(20)
        self.link.flush()
        self.wait(lambda: not self.controller.is_busy)

    def open_stack(self, stack, labels=("Z", "y", "x"), **about):
        layer = self.viewer.add_image(stack, name="stack", axis_labels=labels, **about)
        self.settle()
        return layer

    def go(self, *index):
        """Move the sliders, and let the plane settle."""
        for axis, place in enumerate(index):
            self.viewer.dims.set_current_step(axis, place)
        self.settle()

    def paint(self, rows, columns, label):
        """Paint a block on the plane that is shown."""
        layer = self.link.scribbles
        with layer.block_history():
            for row in rows:
                for column in columns:
                    layer.paint((*self.link.index, row, column), label)
        self.settle()

    def paint_both(self):
        self.paint((10, 50), (10, 20), 1)
        self.paint((10, 50), (60, 70), 2)

    def painted(self):
        """Return the planes with scribbles, as the session knows them."""
        images = self.session.images.painted()
        return sorted(one.key.plane for one in images)


def stack_of(image, count):
    """Return planes that differ, all with what is dark and bright in the image."""
    return np.stack([image + place for place in range(count)])
