"""Where to paint next, and which scribbles to look at again.

Three questions of a person who paints: where is the classifier undecided
(`uncertainty_of`, `probability_of`), where would the next scribble tell the most
(`uncertain_regions`), and which scribbles do the others contradict
(`find_label_issues`).
"""

from __future__ import annotations

from .label_issues import LabelIssue, find_label_issues, judge_strokes, strokes_of
from .uncertain_regions import UncertainRegion, explained_by, uncertain_regions
from .uncertainty import probability_of, uncertainty, uncertainty_of

__all__ = [
    "LabelIssue",
    "UncertainRegion",
    "explained_by",
    "find_label_issues",
    "judge_strokes",
    "probability_of",
    "strokes_of",
    "uncertain_regions",
    "uncertainty",
    "uncertainty_of",
]
