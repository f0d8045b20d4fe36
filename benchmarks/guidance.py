"""Whether guidance helps: wrong strokes found, and strokes where it says.

Run with::

    python benchmarks/guidance.py CASES_DIR [--rounds 4]

Wrong strokes: in each case one stroke of set `a`, chosen by chance, is given another
class. Recall is the share of them that are suspected; precision the share of suspects
that are such strokes; false alarms are counted over all strokes that were left alone,
also with no wrong one in the image.

Places: a person starts with one stroke a class and adds one of the true class in each
round, either at the first uncertain place or at a pixel chosen by chance. mIoU is over
the pixels without strokes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import napari_hrdv2 as hr
from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
from napari_hrdv2.core.guidance import (
    find_label_issues,
    strokes_of,
    uncertain_regions,
    uncertainty_of,
)
from napari_hrdv2.core.measure.scores import mean_iou
from napari_hrdv2.files import read_image, read_labels
from samples import draw_scribbles

if TYPE_CHECKING:
    from napari_hrdv2.core.features.base import Features

Array = NDArray[Any]
FLIPS = 4  # per case
LEAST_PIXELS = 8  # of a stroke that is given another class
REACH = 12  # of a simulated stroke, in pixels
BRUSH = 2


def flipped(strokes: Array, rng: np.random.Generator) -> tuple[Array, int] | None:
    """Return the strokes with one of another class, and a pixel of it."""
    parts = strokes_of(strokes)
    classes = [class_id for class_id, _ in parts]
    able = [
        (class_id, pixels)
        for class_id, pixels in parts
        if classes.count(class_id) > 2 and len(pixels) >= LEAST_PIXELS
    ]
    if not able:
        return None
    class_id, pixels = able[rng.integers(len(able))]
    others = sorted(set(classes) - {class_id})
    wrong = strokes.copy()
    wrong.ravel()[pixels] = others[rng.integers(len(others))]
    return wrong, int(pixels[0])


class Count:
    """Suspects counted over many trials."""

    def __init__(self) -> None:
        self.wrong = self.found = self.alarms = self.right = 0

    def add(self, features: Features, strokes: Array, at: int | None) -> None:
        """Judge the strokes, one of which may be wrong."""
        label_issues = find_label_issues(features, strokes)
        hits = sum(at is not None and at in each.pixels for each in label_issues)
        self.wrong += at is not None
        self.found += hits
        self.alarms += len(label_issues) - hits
        self.right += len(strokes_of(strokes)) - (at is not None)

    def row(self) -> str:
        """Return the cells of a table."""
        if not self.wrong:
            return f"0 | – | – | {self.alarms} of {self.right}"
        recall = self.found / self.wrong
        precision = self.found / max(1, self.found + self.alarms)
        return (
            f"{self.wrong} | {recall:.2f} | {precision:.2f} | "
            f"{self.alarms} of {self.right}"
        )


def stroke_at(truth: Array, row: int, column: int) -> tuple[Array, Array]:
    """Return the pixels of a short stroke that stays in its class.

    It runs along the row, the column or a diagonal, whichever is longest there.
    """
    best: list[tuple[int, int]] = []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        path = []
        for sign in (1, -1):
            for step in range(REACH):
                y, x = row + sign * step * down, column + sign * step * right
                inside = 0 <= y < truth.shape[0] and 0 <= x < truth.shape[1]
                if not inside or truth[y, x] != truth[row, column]:
                    break
                path.append((y, x))
        best = max(best, path, key=len)
    centre = np.asarray(best)
    reach = np.mgrid[-BRUSH : BRUSH + 1, -BRUSH : BRUSH + 1].reshape(2, -1).T
    pixels = (centre[:, None] + reach).reshape(-1, 2)
    pixels = pixels[((pixels >= 0) & (pixels < truth.shape)).all(axis=1)]
    rows, columns = pixels.T
    same = truth[rows, columns] == truth[row, column]
    return rows[same], columns[same]


def by_doubt(model: PixelClassifier, features: Features, strokes: Array) -> Any:
    """Return the first uncertain place."""
    places = uncertain_regions(uncertainty_of(model, features), labels=strokes, count=1)
    return (places[0].row, places[0].column) if places else None


def scores_of_rounds(
    features: Features,
    truth: Array,
    rounds: int,
    rng: np.random.Generator,
    *,
    guided: bool,
) -> list[float]:
    """Return the mIoU before the first and after every round."""
    classes = np.unique(truth).tolist()
    strokes = draw_scribbles(rng, truth, 1, length=(8.0, 16.0))
    model = PixelClassifier()
    scores = []
    for number in range(rounds + 1):
        model.fit(features, strokes)
        unseen = strokes == 0
        found = model.predict(features)
        scores.append(mean_iou(truth[unseen], found[unseen], classes))
        place = by_doubt(model, features, strokes) if guided else None
        if place is None:
            place = divmod(int(rng.choice(np.flatnonzero(unseen))), truth.shape[1])
        if number < rounds:
            strokes[stroke_at(truth, *place)] = truth[place]
    return scores


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--draws", type=int, default=3, help="starts a case")
    options = parser.parse_args()
    cases = json.loads((options.folder / "manifest.json").read_text())
    backbone = hr.load_backbone(options.backbone)
    untouched, wrong = Count(), Count()
    rounds: dict[bool, list[list[float]]] = {False: [], True: []}
    for number, case in enumerate(cases):
        image = read_image(options.folder / case["image"]).data
        features = hr.compute_features(image, backbone)
        strokes = read_labels(options.folder / case["scribbles"]["a"])
        untouched.add(features, strokes, None)
        for trial in range(FLIPS):
            changed = flipped(strokes, np.random.default_rng([number, trial]))
            if changed is not None:
                wrong.add(features, *changed)
        truth = read_labels(options.folder / case["label"]).astype(np.uint8) + 1
        for draw in range(options.draws):
            for guided, found in rounds.items():
                rng = np.random.default_rng([number, draw])
                found.append(
                    scores_of_rounds(
                        features, truth, options.rounds, rng, guided=guided
                    )
                )
    print("| strokes | wrong | recall | precision | false alarms |")
    print("|---" * 5 + "|")
    print(f"| one wrong | {wrong.row()} |")
    print(f"| none wrong | {untouched.row()} |")
    print()
    print(f"| next stroke | {' | '.join(map(str, range(options.rounds + 1)))} |")
    print("|---" * (options.rounds + 2) + "|")
    for guided, title in ((False, "by chance"), (True, "uncertain place")):
        means = np.mean(rounds[guided], axis=0)
        print(f"| {title} | {' | '.join(f'{mean:.3f}' for mean in means)} |")


if __name__ == "__main__":
    main()
