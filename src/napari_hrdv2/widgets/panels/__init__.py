"""What is clicked in the dock widget: what the `PANELS` of its modules list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

    from napari_hrdv2.widgets.controller import Controller

SECTIONS = ("Features", "Paint", "Result")
Attempt = Callable[..., bool]
"""Does something that may be refused; says why if it is, and returns False."""


@dataclass(frozen=True)
class PanelSpec:
    """A panel of the dock widget: where it stands, and how it is made.

    `make`, most often the class of the panel, takes the controller. The panel may have
    a method ``release``, called when the dock is closed, and a signal ``asks``, which
    opens the collapsible section that a `title` puts around it.
    """

    name: str
    section: str  # one of `SECTIONS`
    order: int  # in its section, the lowest on top
    make: Callable[[Controller], QWidget]
    title: str = ""


def panel_specs() -> list[PanelSpec]:
    """Return the panels of all modules in this folder, from top to bottom."""
    names = [f"{__name__}.{module.name}" for module in iter_modules(__path__)]
    listed = [getattr(import_module(name), "PANELS", ()) for name in names]
    found = [spec for specs in listed for spec in specs]
    return sorted(found, key=lambda one: (SECTIONS.index(one.section), one.order))
