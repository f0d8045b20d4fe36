"""Score a checkpoint on generated micrographs that no training run ever sees.

Run with::

    python training/validate.py [RUN_DIR/embedded.safetensors] [--pictures 60]

Prints the mIoU of the package's own classifier on the features of the filter bank, of
the network, and of both, for 1, 2 and 4 strokes a class. Choose by this, not by the
real micrographs, which are there to check the choice.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator

import numpy as np

import napari_hrdv2 as hr
from micrographs import draw_scribbles, random_micrograph
from napari_hrdv2.core.backbones.embedded.backbone import EmbeddedBackbone
from napari_hrdv2.core.backbones.embedded.network import STRIDE
from napari_hrdv2.core.features.high_resolution import JoinedFeatures, with_context
from napari_hrdv2.core.measure.scores import mean_iou

FIRST_SEED = 1 << 62  # training draws its seeds below
STROKES = (1, 2, 4)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", nargs="?")
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--size", type=int, default=320)
    options = parser.parse_args()
    backbone = hr.load_backbone("embedded", weights=options.weights)
    scores = defaultdict(list)
    for number in range(options.pictures):
        entry = random_micrograph(FIRST_SEED + number, options.size)
        features = hr.compute_features(entry.image, backbone)
        classes = list(range(1, int(entry.labels.max()) + 1))
        for strokes in STROKES:
            rng = np.random.default_rng([number, strokes])
            drawn = draw_scribbles(rng, entry.labels, strokes)
            unseen = drawn == 0
            for name, part in parts(features, backbone.network.config.channels):
                found = hr.PixelClassifier().fit(part, drawn).predict(part)
                miou = mean_iou(entry.labels[unseen], found[unseen], classes)
                scores[name, strokes].append(miou)
    print(f"| mIoU, {options.pictures} pictures | filters | network | both |")
    print("|---|---|---|---|")
    for strokes in STROKES:
        means = [np.mean(scores[name, strokes]) for name in ("bank", "net", "both")]
        print(f"| {strokes} a class | {' | '.join(f'{x:.3f}' for x in means)} |")


def parts(
    features: JoinedFeatures, learned: int
) -> Iterator[tuple[str, JoinedFeatures]]:
    """Yield the features of the network, of the filter bank, and of both."""
    own, _ = features.parts
    for name, channels in (
        ("net", slice(None, learned)),
        ("bank", slice(learned, None)),
        ("both", slice(None)),
    ):
        tokens, channel_weights = (
            own.tokens[..., channels].contiguous(),
            own.channel_weights[channels],
        )
        part = hr.HighResFeatures(
            tokens,
            "identity",
            own.shape[1:],
            STRIDE,
            STRIDE,
            channel_weights=channel_weights,
        )
        yield name, with_context(part, EmbeddedBackbone.context_cell)


if __name__ == "__main__":
    main()
