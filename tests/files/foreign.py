"""Small files as ilastik, Labkit and ImageJ write them."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import roifile


def axistags(keys: str) -> str:
    axes = [
        {"key": key, "typeFlags": 1 if key == "c" else 2, "resolution": 0}
        for key in keys
    ]
    return json.dumps({"axes": axes})


def write_ilastik(
    path: Path,
    lanes: dict[str, tuple[np.ndarray, str]],
    *,
    names: tuple[str, ...] = ("Pores", "γ′"),
    colors: tuple[tuple[int, int, int], ...] = ((255, 225, 25), (0, 130, 200)),
    block_tags: bool = True,
) -> None:
    """Write a project whose lanes are (H, W) labels, stored with the axes named.

    Each is cut into two blocks, as ilastik does, with 0 where nothing is painted.
    """
    with h5py.File(path, "w") as file:
        file["ilastikVersion"] = b"1.4.0"
        group = file.create_group("PixelClassification")
        group["LabelNames"] = np.array([name.encode() for name in names])
        group["LabelColors"] = np.array(colors, np.int64)
        sets = group.create_group("LabelSets")
        for index, (file_name, (labels, axes)) in enumerate(lanes.items()):
            info = file.create_group(f"Input Data/infos/lane{index:04d}/Raw Data")
            info["nickname"] = Path(file_name).stem.encode()
            info["filePath"] = f"C:\\data\\{file_name}".encode()
            info["axistags"] = axistags(axes).encode()
            size = dict(zip("yx", labels.shape, strict=True))
            info["shape"] = [size.get(axis, 1) for axis in axes]
            blocks = sets.create_group(f"labels{index:03d}")
            half = labels.shape[1] // 2
            parts = [(0, half), (half, labels.shape[1])]
            for number, (start, stop) in enumerate(parts):
                part = labels[:, start:stop].astype(np.uint8)
                data = np.expand_dims(part, tuple(range(2, len(axes))))
                order = "yx" + "".join(axis for axis in axes if axis not in "yx")
                data = data.transpose([order.index(axis) for axis in axes])
                span = {"y": f"0:{labels.shape[0]}", "x": f"{start}:{stop}"}
                block = blocks.create_dataset(f"block{number:04d}", data=data)
                places = ",".join(span.get(axis, "0:1") for axis in axes)
                block.attrs["blockSlice"] = f"[{places}]"
                if block_tags:
                    block.attrs["axistags"] = axistags(axes)


def labkit(labels: np.ndarray, names: tuple[str, ...], **more: object) -> str:
    """Return a `.labeling` as Labkit writes it: x before y."""
    points = {
        name: np.argwhere(labels == i)[:, ::-1].tolist()
        for i, name in enumerate(names, 1)
    }
    high = [labels.shape[1] - 1, labels.shape[0] - 1]
    return json.dumps(
        {
            "interval": {"n": 2, "min": [0, 0], "max": high},
            "pixelSizes": [{"size": 1.0, "unit": "pixel"}] * 2,
            "labels": points,
            **more,
        }
    )


def region(
    kind: str,
    points: list[tuple[float, float]] | None = None,
    box: tuple[int, int, int, int] | None = None,
    **fields: object,
) -> roifile.ImagejRoi:
    """Return a region by its (x, y) points, or by left, top, right and bottom."""
    roi = roifile.ImagejRoi.frompoints(points) if points else roifile.ImagejRoi()
    roi.roitype = roifile.ROI_TYPE[kind]
    roi.name = str(fields.pop("name", ""))
    if box:
        roi.left, roi.top, roi.right, roi.bottom = box
    for name, value in fields.items():
        setattr(roi, name, value)
    return roi


def write_rois(path: Path, *rois: roifile.ImagejRoi) -> None:
    """Write regions as one file, or several as a zip."""
    if path.suffix == ".zip":
        roifile.roiwrite(path, list(rois), mode="w")
    else:
        rois[0].tofile(path)
