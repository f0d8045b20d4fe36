"""Where to paint next, and which scribbles to look at again.

Five questions of a person who paints: where to begin (`propose_places`), where is the
classifier undecided (`uncertainty_of`, `probability_of`), where is an image unlike
anything painted (`unlikeness_of`), where would the next scribble tell the most
(`uncertain_regions`), and which scribbles do the others contradict
(`find_label_issues`).
"""

from __future__ import annotations

from .label_issues import LabelIssue, find_label_issues, scribbles_of
from .places import Place, propose_places
from .uncertainty import (
    UncertainRegion,
    explained_by,
    probability_of,
    regions_within,
    uncertain_regions,
    uncertainty_of,
)
from .unlike import LIKE, painted_points, unlikeness_of, unlikeness_to

__all__ = [
    "LIKE",
    "LabelIssue",
    "Place",
    "UncertainRegion",
    "explained_by",
    "find_label_issues",
    "painted_points",
    "probability_of",
    "propose_places",
    "regions_within",
    "scribbles_of",
    "uncertain_regions",
    "uncertainty_of",
    "unlikeness_of",
    "unlikeness_to",
]
