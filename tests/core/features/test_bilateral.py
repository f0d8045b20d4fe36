"""Joint bilateral upsampling against its formula, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_hrdv2 import HighResFeatures
from napari_hrdv2.core.features.upsampling import bilateral
from napari_hrdv2.core.postprocess.guides import guide_from

RNG = np.random.default_rng(0)


def by_the_formula(tokens, guide, patch_size, stride):
    """One pixel after the other, from (h, w, C) tokens."""
    height, width, _ = tokens.shape
    margin = (patch_size - stride) // 2
    cells = np.zeros((len(guide), height, width))
    for i, j in np.ndindex(height, width):
        rows, columns = (
            slice(stride * n + margin, stride * n + patch_size - margin) for n in (i, j)
        )
        cells[:, i, j] = guide[:, rows, columns].mean((1, 2))
    output = np.zeros((tokens.shape[2], *guide.shape[1:]))
    for y, x in np.ndindex(*guide.shape[1:]):
        at = [(n - (patch_size - 1) / 2) / stride for n in (y, x)]
        at = [min(max(a, 0), n - 1) for a, n in zip(at, (height, width), strict=True)]
        near = [int(np.floor(a + 0.5)) for a in at]
        total = 0.0
        for down, right in np.ndindex(3, 3):
            i, j = near[0] + down - 1, near[1] + right - 1
            if not (0 <= i < height and 0 <= j < width):
                continue
            space = ((at[0] - i) ** 2 + (at[1] - j) ** 2) / bilateral.SPACE**2
            grey = ((guide[:, y, x] - cells[:, i, j]) ** 2).sum()
            alike = max(-grey / (2 * (255 * bilateral.RANGE) ** 2), bilateral.LOWEST)
            weight = np.exp(alike - space / 2)
            output[:, y, x] += weight * tokens[i, j]
            total += weight
        output[:, y, x] /= total
    return output


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("patch_size", "stride"), [(7, 7), (8, 3), (6, 2), (5, 4)])
def test_pixels_follow_the_formula(patch_size, stride, channels):
    shape = (patch_size + 3 * stride, patch_size + 2 * stride)
    tokens = RNG.standard_normal((4, 3, 2)).astype(np.float32)
    image = RNG.random((channels, *shape)).astype(np.float32)
    features = HighResFeatures(
        tokens[None], "identity", shape, patch_size, stride, "bilateral", guide=image
    )
    guide = guide_from(torch.from_numpy(image)).numpy().astype(float)
    expected = by_the_formula(tokens, guide, patch_size, stride)
    np.testing.assert_allclose(features.materialize(), expected, atol=1e-5)


def test_an_edge_between_two_greys_becomes_sharp():
    image = np.zeros((28, 42), np.float32)
    image[:, 17:] = 1
    tokens = torch.tensor([0, 11 / 14, 1.0]).expand(1, 2, 3)[..., None]  # patch means
    plain, guided = (
        HighResFeatures(
            tokens, "identity", image.shape, 14, 14, name, guide=image
        ).materialize()[0]
        for name in ("bilinear", "bilateral+2")
    )
    # At the edge the grey levels are blurred a little, so two pixels are not compared.
    assert np.abs(guided - image)[:, [*range(15), *range(19, 42)]].max() < 0.06
    assert np.abs(plain - image)[:, [*range(15), *range(19, 42)]].max() > 0.4


def test_the_guide_is_stretched_smoothed_and_small():
    image = torch.from_numpy(RNG.random((3, 40, 50))) * 1000 + 5
    guide = guide_from(image)
    assert guide.dtype == torch.uint8
    assert guide.shape == image.shape
    assert int(guide.min()) == 0
    assert int(guide.max()) == 255
    brighter = guide_from(7 * image - 3).int()
    assert (brighter - guide).abs().max() <= 1  # of 255, by rounding
    assert not guide_from(torch.full((1, 9, 9), 4.0)).any()


def test_the_guide_counts_as_memory():
    tokens = torch.zeros(1, 3, 3, 2)
    features = HighResFeatures(
        tokens, "identity", (8, 9), 3, 3, "bilateral", guide=np.zeros((8, 9))
    )
    assert features.nbytes == tokens.nbytes + 9 * 9


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_tokens_train_and_predict_alike(dtype):
    tokens = torch.from_numpy(RNG.standard_normal((1, 3, 4, 6))).to(dtype)
    features = HighResFeatures(
        tokens, "identity", (21, 28), 7, 7, "bilateral+2", guide=RNG.random((21, 28))
    )
    assert features.tokens.dtype == dtype
    weight = RNG.standard_normal((2, 6))
    rows, columns = RNG.integers(0, 21, 30), RNG.integers(0, 28, 30)
    planes = features.project(weight, [0, 0])[:, rows, columns]
    np.testing.assert_allclose(
        features.sample(rows, columns) @ weight.T, planes.T, atol=1e-5
    )
