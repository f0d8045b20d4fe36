"""Where to paint next, and which strokes to look at again.

Three questions of a person who paints: where is the classifier undecided
(`uncertainty_of`, `probability_of`), where would the next stroke tell the most
(`uncertain_places`), and which strokes do the others contradict
(`contradicted_strokes`).
"""

from __future__ import annotations

from napari_hrdv2.core.guidance.label_issues import (
    Suspect,
    contradicted_strokes,
    judge_strokes,
    strokes_of,
)
from napari_hrdv2.core.guidance.uncertain_regions import (
    Place,
    explained_by,
    uncertain_places,
)
from napari_hrdv2.core.guidance.uncertainty import (
    probability_of,
    uncertainty,
    uncertainty_of,
)

__all__ = [
    "Place",
    "Suspect",
    "contradicted_strokes",
    "explained_by",
    "judge_strokes",
    "probability_of",
    "strokes_of",
    "uncertain_places",
    "uncertainty",
    "uncertainty_of",
]
