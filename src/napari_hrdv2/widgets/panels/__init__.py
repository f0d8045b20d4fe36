"""What is clicked in the dock widget: what the `PANELS` of its modules list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

    from napari_hrdv2.widgets.controller import Controller

SECTIONS = ("Features", "Paint", "Result")
Attempt = Callable[..., bool]
"""Does something that may be refused; says why if it is, and returns False."""


@dataclass(frozen=True)
class PanelSpec:
    """A panel of the dock widget: where it stands, and how it is made.

    `make` takes the controller and hands the parts that are used to the panel. The
    panel may have a method ``release``, called when the dock is closed, and a signal
    ``asks``, which opens the collapsible section that a `title` puts around it.
    """

    name: str
    section: str  # one of `SECTIONS`
    order: int  # in its section, the lowest on top
    make: Callable[[Controller], QWidget]
    title: str = ""


class Training(Protocol):
    """What trains the classifier: the part of the controller that panels call."""

    live: bool
    live_changed: Any

    def set_live(self, live: bool) -> None:
        """Answer every scribble from now on, or only when asked to."""

    def train_anew(self) -> None:
        """Train and segment although nothing may have changed."""


class Computation(Protocol):
    """What computes features: the part of the controller that panels call."""

    computing_changed: Any
    progress_changed: Any

    @property
    def is_computing(self) -> bool:
        """Whether features of the current image are being computed."""

    def compute_features(self) -> None:
        """Compute features as the options say."""

    def cancel(self) -> None:
        """Stop computing features."""


def panel_specs() -> list[PanelSpec]:
    """Return the panels of all modules in this folder, from top to bottom."""
    names = [f"{__name__}.{module.name}" for module in iter_modules(__path__)]
    listed = [getattr(import_module(name), "PANELS", ()) for name in names]
    return sorted(
        (spec for specs in listed for spec in specs),
        key=lambda spec: (SECTIONS.index(spec.section), spec.order),
    )
