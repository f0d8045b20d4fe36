"""Draw transforms.png: what each transform set does to an ideal token map.

Run with::

    PYTHONPATH=training python docs/images/make_transforms.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from micrographs import make_sample
from napari_hrdv2 import compute_features
from napari_hrdv2.core.features.transforms import TransformSet, parse_transforms

PATCH = 14
CASES = (
    ("identity", 14, "nearest"),
    ("identity", 14, "bilinear"),
    ("shift:1,2", 14, "bilinear"),
    ("shift:1,2:neumann", 14, "bilinear"),
    ("lattice:2", 14, "bilinear"),
    ("lattice:4", 14, "bilinear"),
    ("lattice:2", 7, "bilinear"),
)
CROP, ZOOM, MARGIN, CAPTION = 84, 3, 16, 30


class PatchMeans:
    """An ideal backbone: a token is the mean grey level of its patch."""

    name, channels, patch_size, equivariant = "patch means", 1, PATCH, False
    device, dtype, weights_hash, steps = torch.device("cpu"), torch.float32, "", 1
    default_transforms, absolute_levels, activations = "identity", True, 1
    context_cell = 0

    def channels_for(self, image_channels: int) -> int:
        """Return 1."""
        return 1

    def channel_weights_for(self, image_channels: int) -> None:
        """Return that there is nothing to choose between."""

    def tokens(
        self, images: torch.Tensor, *, stride: int, tick: object
    ) -> torch.Tensor:
        """Return the means, (B, h, w, 1)."""
        return torch.nn.functional.avg_pool2d(images, PATCH, stride).movedim(1, -1)


def shift_diagram(chosen: TransformSet, side: int) -> Image.Image:
    """Return where the centre of a patch comes to lie, around one patch."""
    entry = Image.new("RGB", (side, side), "#f4f4f4")
    draw = ImageDraw.Draw(entry)
    scale = side / (2 * PATCH)
    draw.rectangle((side / 4, side / 4, 3 * side / 4, 3 * side / 4), outline="#888888")
    for copy in chosen.copies:
        row, column = (shift + PATCH / 2 for shift in copy.shift)
        x, y = side / 4 + column * scale, side / 4 + row * scale
        draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill="#1f6feb")
    return entry


def shown(plane: np.ndarray) -> Image.Image:
    """Return a part of a plane in 0..1 as a zoomed picture."""
    part = (255 * np.clip(plane[:CROP, :CROP], 0, 1)).astype(np.uint8)
    entry = Image.fromarray(part).convert("RGB")
    return entry.resize((CROP * ZOOM, CROP * ZOOM), Image.Resampling.NEAREST)


def main() -> None:
    """Write the picture beside this file."""
    image = make_sample("particles", (168, 168), seed=3).image
    side = CROP * ZOOM
    cell = (2 * side + 2 * MARGIN, side + CAPTION + MARGIN)
    sheet = Image.new("RGB", (2 * cell[0], 4 * cell[1]), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(16)
    images = [("image", shown(image / 255.0), None)]
    for spec, stride, interpolation in CASES:
        features = compute_features(
            image, PatchMeans(), spec, stride, interpolation=interpolation
        )
        chosen = parse_transforms(spec, stride)
        caption = (
            f"{spec}, stride {stride}, {interpolation}: {len(chosen)} run"
            + "s" * (len(chosen) > 1)
        )
        plane = features.project([[1.0]], [0.0])[0]
        images.append((caption, shown(plane), shift_diagram(chosen, side)))
    for number, (caption, entry, diagram) in enumerate(images):
        x = number % 2 * cell[0] + MARGIN // 2
        y = number // 2 * cell[1]
        draw.text((x, y + 6), caption, fill="black", font=font)
        if diagram is None:
            sheet.paste(entry, (x, y + CAPTION))
        else:
            sheet.paste(diagram, (x, y + CAPTION))
            sheet.paste(entry, (x + side + MARGIN, y + CAPTION))
    sheet.save(Path(__file__).with_name("transforms.png"), optimize=True)


if __name__ == "__main__":
    main()
