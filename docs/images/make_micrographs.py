"""Draw micrographs.png: what the generator makes to train on.

Run with::

    PYTHONPATH=training python docs/images/make_micrographs.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from micrographs import draw_scribbles, random_micrograph

ROWS, COLUMNS, SIZE, GAP = 4, 4, 160, 6
COLORS = np.array(
    [
        [0, 0, 0],
        [68, 119, 170],
        [238, 102, 119],
        [34, 136, 51],
        [204, 187, 68],
        [170, 51, 119],
    ],
    np.uint8,
)


def pair(seed: int) -> np.ndarray:
    """Return a picture beside its classes, strokes drawn brighter."""
    entry = random_micrograph(seed, SIZE)
    strokes = draw_scribbles(np.random.default_rng(seed), entry.labels, 2)
    image = entry.image
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=-1)
    classes = COLORS[entry.labels] // 2
    classes[strokes > 0] = COLORS[strokes[strokes > 0]] // 2 + 127
    return np.concatenate([image, classes], axis=1)


def main() -> None:
    """Write the picture beside this file."""
    height, width = SIZE + GAP, 2 * SIZE + GAP
    sheet = Image.new("RGB", (COLUMNS * width - GAP, ROWS * height - GAP), "white")
    for number in range(ROWS * COLUMNS):
        row, column = divmod(number, COLUMNS)
        sheet.paste(Image.fromarray(pair(number)), (column * width, row * height))
    sheet.save(Path(__file__).with_name("micrographs.png"), optimize=True)


if __name__ == "__main__":
    main()
