"""From token grid to pixels: the ways of interpolation, by name."""

SHARPENED = ("bilinear", "bicubic", "interleaved", "bilateral")
"""Those that may be followed by steps of back-projection."""

INTERPOLATIONS = (
    "nearest",
    *(f"{method}{more}" for method in SHARPENED for more in ("", "+1", "+2")),
    "jbu",
)
