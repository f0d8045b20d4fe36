"""What the user has set in napari's Preferences for this plugin."""

from __future__ import annotations

from dataclasses import dataclass, fields

PLUGIN = "napari-hrdv2"


@dataclass(frozen=True)
class Preferences:
    """Settings that hold for every session; the manifest describes each of them."""

    start_features: bool = True
    live: bool = True
    backbone: str = "embedded"
    autosave: bool = True
    autosave_folder: str = ""


def read_preferences() -> Preferences:
    """Return the preferences, or the defaults where napari knows none (before 0.9)."""
    try:
        from napari.settings import get_plugin_settings

        chosen = get_plugin_settings(PLUGIN).segmentation
    except (ImportError, KeyError, AttributeError):
        return Preferences()
    names = [field.name for field in fields(Preferences)]
    return Preferences(**{name: getattr(chosen, name) for name in names})
