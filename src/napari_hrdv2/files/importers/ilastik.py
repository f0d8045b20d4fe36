"""Labels of an ilastik pixel classification project (.ilp, which is HDF5).

What is painted lies in blocks: `PixelClassification/LabelSets/labelsNNN/blockNNNN` for
lane NNN, each with its place in `blockSlice` ("[0:1,5:9,…]") and the order of its axes
in `axistags`. Older projects leave out the latter; then the axes are those of the
lane's image in `Input Data/infos/laneNNNN/Raw Data`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_hrdv2.core.limits import check_claim, parse_json
from napari_hrdv2.files import labels as label_files
from napari_hrdv2.files import reading

_USUAL_AXES = {2: "yx", 3: "yxc", 4: "zyxc", 5: "tzyxc"}


@dataclass(frozen=True)
class _Lane:
    """An image of the project: what it is called, its size if that is known."""

    index: int
    title: str
    names: frozenset[str]
    axes: str
    lengths: dict[str, int]

    @property
    def shape(self) -> tuple[int, int] | None:
        if {"y", "x"} <= set(self.lengths):
            return self.lengths["y"], self.lengths["x"]
        return None

    @property
    def planes(self) -> int:
        return self.lengths.get("z", 1) * self.lengths.get("t", 1)

    def __str__(self) -> str:
        size = f" ({reading.size_text(self.shape)})" if self.shape else ""
        return f"{self.title}{size}"


def read_ilastik(
    path: Path, shape: tuple[int, int] | None, *, image_name: str | None = None
) -> label_files.ImportedLabels:
    """Return the labels of one image of a project; see `import_labels`."""
    h5py = reading.optional_module("h5py", f"{path}: reading ilastik projects")
    with reading.told(path), h5py.File(path, "r") as file:
        group = file.get("PixelClassification")
        if group is None or "LabelSets" not in group:
            raise reading.NotReadError(
                f"{path} has no labels of ilastik's pixel classification; give a "
                "project of that workflow"
            )
        lane = _chosen(path, _lanes(file), shape, image_name)
        sets = group["LabelSets"]
        key = next((key for key in sets if _number(key) == lane.index), None)
        labels = _labels(path, sets[key] if key else {}, lane, shape)
        classes = _classes(group)
    painted = np.unique(labels[labels > 0])
    note = f"{label_files.count_text(len(painted), 'class', 'classes')} of {lane.title}"
    return label_files.ImportedLabels(
        label_files.checked_ids(labels), classes, f"ilastik project: {note}."
    )


def _lanes(file: Any) -> list[_Lane]:
    infos = file["Input Data/infos"]
    found = []
    for key in sorted(infos, key=_number):
        info = infos[key].get("Raw Data", infos[key])
        nickname, file_path = (_text(info, name) for name in ("nickname", "filePath"))
        # Projects travel: the path may be of Windows, and end inside an HDF5 file.
        outer = re.split(r"(?<=\.h5)/", file_path.replace("\\", "/"))[0]
        file_name = PureWindowsPath(outer)
        names = {nickname, file_name.name, file_name.stem} - {""}
        axes = _axes(_text(info, "axistags")) or _text(info, "axisorder")
        lengths = _values(info["shape"]).tolist() if "shape" in info else []
        axes = axes or _USUAL_AXES.get(len(lengths), "")
        found.append(
            _Lane(
                index=_number(key),
                title=file_name.name or nickname or key,
                names=frozenset(name.lower() for name in names),
                axes=axes,
                lengths=dict(zip(axes, lengths, strict=False)),
            )
        )
    return found


def _chosen(
    path: Path,
    lanes: list[_Lane],
    shape: tuple[int, int] | None,
    image_name: str | None,
) -> _Lane:
    """The lane of that name, or the only one of that size."""
    wanted = {str(image_name).lower(), Path(str(image_name)).stem.lower()}
    candidates = [lane for lane in lanes if image_name and lane.names & wanted]
    if len(candidates) != 1:
        fitting = [x for x in candidates or lanes if shape is None or x.shape == shape]
        candidates = fitting or (lanes if len(lanes) == 1 else [])
    if len(candidates) == 1:
        lane = candidates[0]
        if lane.planes > 1:
            raise ValueError(
                f"{path}: {lane.title} is a stack of {lane.planes} planes; labels of "
                "one 2-D image are needed"
            )
        if lane.shape is not None:
            label_files.check_size(path, lane.shape, shape)
        return lane
    listed = "; ".join(map(str, lanes)) or "none"
    said = f"named {image_name!r}" if image_name else "to choose"
    size = f" of {reading.size_text(shape)}" if shape else ""
    raise ValueError(
        f"{path} has no single image {said}{size}; it has {listed}: give the name of "
        "one of them"
    )


def _labels(
    path: Path, blocks: Any, lane: _Lane, shape: tuple[int, int] | None
) -> NDArray[Any]:
    parts = [_block(path, blocks[key], lane) for key in sorted(blocks)]
    size = lane.shape or shape
    if size is None:  # an old project that does not say: as far as is painted
        size = (
            max((rows.stop for rows, _, _ in parts), default=0),
            max((columns.stop for _, columns, _ in parts), default=0),
        )
    if lane.shape is None or shape is None:
        check_claim(4 * size[0] * size[1], path.stat().st_size, path)
    kind = np.uint32 if any(b.size and b.max() > 65535 for _, _, b in parts) else "u2"
    labels = np.zeros(size, kind)
    for rows, columns, block in parts:
        if rows.stop > size[0] or columns.stop > size[1]:
            label_files.check_size(path, (rows.stop, columns.stop), size)
        # Blocks may overlap by their borders: what is not painted hides nothing.
        np.copyto(labels[rows, columns], block, where=block > 0)
    if not labels.any():
        raise ValueError(f"{path} has no labels on {lane.title}; paint it in ilastik")
    return labels


def _block(path: Path, node: Any, lane: _Lane) -> tuple[slice, slice, NDArray[Any]]:
    """Rows, columns and (rows, columns) ids of a block, whatever its axes."""
    attributes = dict(node.attrs)
    data = _values(node["data"] if hasattr(node, "keys") else node)  # a masked one
    spans = re.findall(r"(\d+):(\d+)", _decoded(attributes["blockSlice"]))
    axes = _axes(_decoded(attributes.get("axistags", ""))) or lane.axes
    if len(axes) == data.ndim - 1 and "c" not in axes:
        axes += "c"
    if len(axes) != data.ndim:
        axes = _USUAL_AXES.get(data.ndim, "")
    if not {"y", "x"} <= set(axes) or len(spans) != data.ndim:
        raise reading.damaged(
            path, ValueError(f"a block of labels has the axes {axes!r}")
        )
    at = {axis: slice(int(a), int(b)) for axis, (a, b) in zip(axes, spans, strict=True)}
    row, column = axes.index("y"), axes.index("x")
    moved = np.moveaxis(data, (row, column), (-2, -1))
    return at["y"], at["x"], moved.reshape(-1, *moved.shape[-2:])[0]


def _classes(group: Any) -> label_files.LabelClasses:
    names, colors = _rows(group, "LabelNames"), _rows(group, "LabelColors")
    return label_files.LabelClasses(
        {i: _decoded(name) for i, name in enumerate(names, 1)},
        {
            i: "#{:02x}{:02x}{:02x}".format(*map(int, rgb[:3]))
            for i, rgb in enumerate(colors, 1)
        },
    )


def _rows(group: Any, name: str) -> Any:
    if name not in group or group[name].attrs.get("isEmpty", False):
        return []
    return _values(group[name])


def _values(dataset: Any) -> Any:
    """Return what a dataset holds, if that fits into its file."""
    size = Path(dataset.file.filename).stat().st_size
    check_claim(int(dataset.nbytes), size, dataset.name)
    return dataset[()]


def _axes(axistags: str) -> str:
    if not axistags:
        return ""
    return "".join(axis["key"] for axis in parse_json(axistags)["axes"])


def _text(group: Any, name: str) -> str:
    return _decoded(_values(group[name])) if name in group else ""


def _decoded(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _number(key: str) -> int:
    digits = re.findall(r"\d+", key)
    return int(digits[-1]) if digits else 0
