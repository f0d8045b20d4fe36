"""All planes of a stack in the window: streamed into a file as `segment` does it."""

import shutil
import threading
import weakref

import dask.array
import numpy as np
import pytest
import tifffile
import zarr
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QMessageBox

from napari_hrdv2.cli import main
from napari_hrdv2.core.features.volumes import VolumeFeatures
from napari_hrdv2.session.batch.volumes import volume_options
from napari_hrdv2.widgets.viewer.layers import METADATA_KEY

SIZE = (5, 24, 28)


@pytest.fixture(scope="module")
def truth():
    z, y, x = np.indices(SIZE)
    return np.where((z - 2) ** 2 * 9 + (y - 12) ** 2 + (x - 14) ** 2 < 70, 2, 1)


@pytest.fixture
def grey(truth):
    noise = np.random.default_rng(0).normal(0, 12, SIZE)
    return np.clip(truth * 70 + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def open_stack(make_napari_viewer_proxy, make_bench, monkeypatch, tmp_path):
    """Return a function that opens a stack with the dock widget beside it."""
    monkeypatch.setattr(
        QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "out")
    )
    yes = QMessageBox.StandardButton.Yes
    monkeypatch.setattr(QMessageBox, "question", lambda *_: yes)
    (tmp_path / "out").mkdir()

    def open_it(stack, **about):
        bench = make_bench(make_napari_viewer_proxy())
        bench.session.configure(backbone="filters")
        about = {"name": "stack", "contrast_limits": (0, 255), "cache": False} | about
        bench.viewer.add_image(stack, axis_labels=("Z", "y", "x"), **about)
        bench.panel = bench.widget.apply.stack
        bench.target = tmp_path / "out" / "stack_segmentation.zarr"
        bench.wait(lambda: bench.session.features is not None)
        bench.settle()
        return bench

    return open_it


@pytest.fixture
def bench(open_stack, grey):
    return open_stack(dask.array.from_array(grey, chunks=(1, *SIZE[1:])))


def stroke(bench, points, label):
    """Draw with a brush of one pixel."""
    layer = bench.scribbles
    layer.brush_size = 1
    with layer.block_history():
        for point in points:
            layer.paint(point, label)


def draw(bench):
    """Paint both classes on two planes, one after the other."""
    for z in (1, 3):
        bench.viewer.dims.set_current_step(0, z)
        bench.settle()
        stroke(bench, [(z, 2, x) for x in range(3, 20)], 1)
        stroke(bench, [(z, 22, x) for x in range(9, 26)], 1)
        stroke(bench, [(z, 12, x) for x in range(10, 18)], 2)
        bench.settle()


def choose(bench, planes):
    """Choose what planes know of each other as a hand does."""
    panel, (kind, _, width) = bench.panel, planes.partition("+")
    position = 2 if kind == "xyz" else int(bool(width))
    panel.relation.setCurrentIndex(position)
    panel.relation.activated.emit(position)
    if width:
        panel.context.setValue(float(width))
    assert bench.session.options.planes == planes


def segment_all(bench):
    bench.panel.run.click()
    bench.wait(lambda: not bench.panel.run.is_running)
    bench.settle()


def held(bench, monkeypatch):
    """Press the button; return what lets it go on, and the planes begun."""
    made, reached, go = VolumeFeatures.planes, threading.Event(), threading.Event()
    begun = []

    def planes(self, model, area, stop=None):
        begun.append(area.rows.start // SIZE[1])
        if len(begun) == 3:
            reached.set()
            go.wait(60)
        return made(self, model, area, stop)

    monkeypatch.setattr(VolumeFeatures, "planes", planes)
    bench.panel.run.click()
    bench.wait(reached.is_set)
    return go, begun


def bytes_in(path):
    files = (p for p in path.rglob("*") if p.is_file() and p.name != ".zattrs")
    return {str(p.relative_to(path)): p.read_bytes() for p in files}


def written(bench, grey, folder):
    """Return the command for the stack and the scribbles as they are now."""
    for name, array in (("stack", grey), ("drawn", np.asarray(bench.scribbles.data))):
        tifffile.imwrite(folder / f"{name}.tif", array, metadata={"axes": "ZYX"})
    stack, drawn = str(folder / "stack.tif"), str(folder / "drawn.tif")
    return ["segment", stack, "-l", drawn, "-b", "filters"]


@pytest.mark.parametrize("planes", ["z", "z+1", "xyz"])
def test_all_planes_are_those_of_the_command_line(bench, grey, truth, tmp_path, planes):
    draw(bench)
    choose(bench, planes)
    segment_all(bench)
    with pytest.raises(SystemExit):
        main([*written(bench, grey, tmp_path), "--planes", planes])
    ours, theirs = bench.target, tmp_path / "stack_segmentation.zarr"
    assert bytes_in(ours) == bytes_in(theirs)
    layer = bench.viewer.layers["All planes: stack"]
    assert isinstance(layer.data, zarr.Array)
    assert np.mean(np.asarray(layer.data) == truth) > 0.9
    assert str(bench.target) in bench.panel.note.text()
    assert "Class 2" in bench.panel.note.text()


def test_what_is_cancelled_is_kept_and_gone_on_with_to_the_same_bytes(
    bench, monkeypatch
):
    draw(bench)
    choose(bench, "z+1")
    go, begun = held(bench, monkeypatch)
    assert bench.panel.run.text() == "Cancel"
    bench.panel.run.click()
    go.set()
    bench.wait(lambda: not bench.panel.run.is_running)
    assert "the next press goes on" in bench.panel.note.text()
    assert not bench.target.exists()
    segment_all(bench)
    assert begun == [0, 1, 2, 2, 3, 4]
    in_parts = bytes_in(bench.target)
    shutil.rmtree(bench.target)
    segment_all(bench)
    assert begun[6:] == [0, 1, 2, 3, 4]
    assert bytes_in(bench.target) == in_parts


def test_a_loaded_classifier_segments_all_planes_as_it_was_trained(
    bench, grey, tmp_path
):
    draw(bench)
    given = written(bench, grey, tmp_path)
    kept = str(tmp_path / "c.safetensors")
    with pytest.raises(SystemExit):
        main([*given, "--planes", "z+1", "--save-classifier", kept])
    bench.controller.load_classifier(kept)
    bench.settle()
    assert bench.panel.relation.currentText() == "Planes: with neighbours"
    segment_all(bench)
    theirs = zarr.open_group(tmp_path / "stack_segmentation.zarr", mode="r")["0"]
    ours = bench.viewer.layers["All planes: stack"].data
    assert np.mean(np.asarray(ours) == np.asarray(theirs)) > 0.999


def test_a_stack_of_another_pixel_size_is_taken_as_it_is_and_told(
    bench, grey, tmp_path
):
    draw(bench)
    given, kept = written(bench, grey, tmp_path), str(tmp_path / "c.safetensors")
    with pytest.raises(SystemExit):
        main([*given, "--save-classifier", kept])
    image = bench.viewer.layers["stack"]
    image.units, image.scale = ("um",) * 3, (2, 2, 2)
    bench.controller.load_classifier(kept)
    bench.session.classifier.pixel_size = (1.0, "µm")
    bench.settle()
    options = volume_options(bench.session)
    segment_all(bench)
    told = "Its pixels are 2 times as large as those of the training (2 µm, 1 µm)."
    assert told in bench.panel.note.text()
    theirs = zarr.open_group(tmp_path / "stack_segmentation.zarr", mode="r")["0"]
    ours = bench.viewer.layers["All planes: stack"].data
    assert np.mean(np.asarray(ours) == np.asarray(theirs)) > 0.999
    bench.session.configure(resamples=False)
    bench.session.compute_features()
    assert volume_options(bench.session) == options  # nothing is to be begun anew


class Counted:
    """An array of planes that counts those that are alive, and where they are read."""

    ndim, dtype, shape = 3, np.dtype(np.uint8), (40, 12, 16)

    def __init__(self, made):
        self._made, self._lock = made, threading.Lock()
        self.alive = self.most = self.read = 0

    def __getitem__(self, index):
        pixels = self._made[index].copy()
        if threading.current_thread() is not threading.main_thread():
            with self._lock:
                self.alive += (planes := max(pixels.size // (12 * 16), 1))
                self.read += planes
                self.most = max(self.most, self.alive)
            weakref.finalize(pixels, self._gone, planes)
        return pixels

    def _gone(self, planes):
        with self._lock:
            self.alive -= planes


def test_few_planes_are_held_at_once(open_stack, monkeypatch):
    # What is read at once for grey levels and fingerprint has bytes, not planes.
    monkeypatch.setattr("napari_hrdv2.core.features.blocks.statistics.TILE", 8)
    monkeypatch.setattr("napari_hrdv2.core.fingerprints._BLOCK_BYTES", 2 * 12 * 16)
    z, y, x = np.indices(Counted.shape)
    grey = ((x > 7) * 120 + y * 3 + z).astype(np.uint8)
    counted = Counted(grey)
    lazy = dask.array.from_array(counted, chunks=(1, 12, 16), asarray=False)
    bench = open_stack(lazy)
    bench.viewer.dims.set_current_step(0, 9)
    bench.settle()
    stroke(bench, [(9, 2, x) for x in range(1, 6)], 1)
    stroke(bench, [(9, 2, x) for x in range(10, 15)], 2)
    bench.settle()
    assert all(one.image.forget() is None for one in bench.session.images.values())
    counted.most = counted.alive
    before = counted.alive, counted.read
    segment_all(bench)
    assert counted.read - before[1] >= 2 * 40
    assert counted.most - before[0] <= 3
    labels = bench.viewer.layers["All planes: stack"].data
    assert np.mean(np.asarray(labels) == (x > 7) + 1) > 0.95


def test_strokes_from_the_side_train_all_planes_and_are_answered_when_one_is_back(
    bench, truth
):
    bench.viewer.dims.order = (1, 0, 2)  # planes and columns are seen
    bench.settle()
    assert "from the side: what you paint counts on all planes" in bench.session.status
    bench.viewer.dims.set_current_step(1, 12)
    stroke(bench, [(z, 12, x) for z in (0, 4) for x in range(1, 27)], 1)
    stroke(bench, [(z, 12, 14) for z in (1, 2, 3)], 2)
    bench.settle()
    session = bench.session
    painted = {e.key.plane: e.class_ids for e in session.images.painted()}
    assert painted == {(0,): (1,), (1,): (2,), (2,): (2,), (3,): (2,), (4,): (1,)}
    assert session.segmentation is None  # nothing answers what is seen from the side
    assert "from the side" in session.status
    bench.scribbles.undo()
    bench.settle()
    assert len(session.images.painted()) == 2
    bench.scribbles.redo()
    bench.settle()
    segment_all(bench)
    labels = np.asarray(bench.viewer.layers["All planes: stack"].data)
    assert np.mean(labels == truth) > 0.8
    bench.viewer.dims.order = (0, 1, 2)
    bench.settle()
    bench.wait(lambda: session.segmentation is not None)
    drawn = np.asarray(bench.scribbles.data)
    assert np.count_nonzero(drawn) == 2 * 26 + 3


def test_strokes_from_the_side_are_read_though_the_axes_roll_back_at_once(bench):
    bench.viewer.dims.order = (1, 0, 2)
    bench.settle()
    bench.viewer.dims.set_current_step(1, 12)
    stroke(bench, [(z, 12, 3) for z in range(5)], 1)
    bench.viewer.dims.order = (0, 1, 2)
    bench.settle()
    painted = {one.key.plane for one in bench.session.images.painted()}
    assert painted == {(z,) for z in range(5)}


def test_planes_that_are_deeper_than_wide_have_no_three_orientations(open_stack, grey):
    units = ("nm",) * 3
    bench = open_stack(grey, scale=(50, 10, 10), units=units)
    panel = bench.panel
    item = panel.relation.model().item(2)
    assert not item.flags() & Qt.ItemFlag.ItemIsEnabled
    panel.relation.activated.emit(1)
    assert bench.session.options.planes == "z+100nm"
    assert not panel.context.isHidden()
    assert panel.context.text() == "Width 100.00 nm"
    assert panel.cost.text().startswith("5 planes, 1 pass each, ")
    assert panel.cost.text().endswith("; into a file")
    panel.context.setValue(0.0)
    bench.session.configure(planes="z+0.025um")
    bench.settle()
    assert panel.context.text() == "Width 0.025 um"
    panel.context.setValue(0.004)
    assert bench.session.options.planes == "z+0.004um"
    bench.viewer.layers["stack"].scale = (10, 10, 10)
    bench.wait(lambda: bool(item.flags() & Qt.ItemFlag.ItemIsEnabled))
    panel.relation.activated.emit(0)
    assert panel.cost.text().endswith("; into memory")


def test_a_file_that_says_how_deep_voxels_are_counts_as_a_scale_does(open_stack, grey):
    told = {"file_spacing": (50.0, "nm"), "file_pixel_size": (10.0, "nm")}
    bench = open_stack(grey, metadata={METADATA_KEY: told})
    draw(bench)
    assert not bench.panel.relation.model().item(2).flags() & Qt.ItemFlag.ItemIsEnabled
    bench.session.configure(planes="xyz")
    with pytest.raises(ValueError, match="planes: 'xyz' is for voxels as deep as wide"):
        bench.panel.overlay.start(bench.target)
    assert not bench.controller.is_busy


def test_painting_again_brings_the_answers_to_single_planes_back(bench):
    draw(bench)
    segment_all(bench)
    layers = bench.viewer.layers
    assert layers["All planes: stack"].visible
    assert not layers["Segmentation: stack"].visible
    bench.viewer.dims.set_current_step(0, 2)
    bench.settle()
    assert layers["All planes: stack"].visible
    stroke(bench, [(2, 2, x) for x in range(3, 20)], 1)
    bench.settle()
    assert not layers["All planes: stack"].visible
    assert layers["Segmentation: stack"].visible
    bench.panel.run.click()
    stroke(bench, [(2, 22, x) for x in range(3, 20)], 1)
    bench.controller.link.flush()
    bench.wait(lambda: not bench.panel.run.is_running)
    assert "What was painted meanwhile counts the next" in bench.panel.note.text()


def open_another(bench, name, path=""):
    """Open a stack beside the one that is there, paint on it and segment all of it."""
    axes, grey = ("Z", "y", "x"), np.array(bench.viewer.layers["stack"].data)[::-1]
    lazy = dask.array.from_array(grey, chunks=(1, *SIZE[1:]))
    about = (
        {"metadata": {METADATA_KEY: {"path": path, "file_pixel_size": None}}}
        if path
        else {}
    )
    bench.viewer.add_image(lazy, name=name, axis_labels=axes, cache=False, **about)
    bench.wait(lambda: bench.controller.link.image.name == name)
    link = bench.controller.link
    bench.settle()
    for label, row in ((1, 2), (2, 12)):
        for x in range(12, 17):
            link.scribbles.paint((bench.controller.link.index[0], row, x), label)
    bench.settle()
    segment_all(bench)


def shown(bench, name):
    layers = bench.viewer.layers
    return tuple(
        layers[f"{kind}: {name}"].visible for kind in ("All planes", "Segmentation")
    )


def test_all_planes_are_hidden_for_the_stack_that_is_painted_and_for_no_other(bench):
    draw(bench)
    segment_all(bench)
    open_another(bench, "other")
    other, layers = bench.controller.link.scribbles, bench.viewer.layers
    assert shown(bench, "other") == (True, False)
    bench.controller.link.select_image(layers["stack"])
    assert shown(bench, "stack") == (True, False)
    stroke(bench, [(2, 4, x) for x in range(3, 20)], 1)
    bench.settle()
    assert shown(bench, "stack") == (False, True)
    bench.controller.link.select_image(layers["other"])
    assert shown(bench, "other") == (True, False)
    other.paint((bench.controller.link.index[0], 20, 20), 1)
    bench.settle()
    assert shown(bench, "other") == (False, True)


def test_two_stacks_of_one_file_name_have_a_file_each(bench, tmp_path):
    draw(bench)
    segment_all(bench)
    first = bytes_in(bench.target)
    open_another(bench, "other", str(tmp_path / "elsewhere" / "stack.tif"))
    second = bench.target.with_name("stack_2_segmentation.zarr")
    assert str(second) in bench.panel.note.text()
    assert bytes_in(bench.target) == first != bytes_in(second)


def test_single_answers_are_back_when_the_layer_of_all_planes_goes(bench):
    draw(bench)
    segment_all(bench)
    bench.viewer.layers.remove("All planes: stack")
    assert bench.viewer.layers["Segmentation: stack"].visible


@pytest.mark.parametrize("change", ["exclusion", "refinement", "planes", "loaded"])
def test_all_planes_are_old_by_all_that_they_are_made_of(bench, tmp_path, change):
    draw(bench)
    kept = tmp_path / "kept.safetensors"
    bench.session.save_classifier(kept)
    segment_all(bench)
    bench.viewer.dims.set_current_step(0, 2)
    bench.settle()
    assert shown(bench, "stack") == (True, False)
    if change == "exclusion":
        bench.session.set_exclusion(np.eye(*SIZE[1:], dtype=bool))
    elif change == "refinement":
        bench.session.refinement.change(min_object=9)
    elif change == "planes":
        choose(bench, "z+1")
    else:
        bench.controller.load_classifier(str(kept))
    bench.settle()
    assert shown(bench, "stack") == (False, True)


def test_replaced_pixels_end_the_run(bench, grey, monkeypatch):
    draw(bench)
    choose(bench, "z+1")
    go, _ = held(bench, monkeypatch)
    bench.viewer.layers["stack"].data = dask.array.from_array(grey[::-1].copy())
    go.set()
    bench.wait(lambda: not bench.panel.run.is_running)
    bench.settle()
    assert "All planes: stack" not in bench.names
    assert not bench.target.exists()
    assert bench.panel.overlay.target is None


def test_what_is_cancelled_is_not_deleted_unasked_after_another_stroke(
    bench, monkeypatch
):
    draw(bench)
    choose(bench, "z+1")
    go, _ = held(bench, monkeypatch)
    bench.panel.run.click()
    go.set()
    bench.wait(lambda: not bench.panel.run.is_running)
    assert "the next press goes on" in bench.panel.note.text()
    bench.session.refinement.change(min_object=9)
    assert "the next press begins anew" in bench.panel.note.text()
    asked, no = [], QMessageBox.StandardButton.No
    monkeypatch.setattr(
        QMessageBox, "question", lambda *about: asked.append(about[2]) or no
    )
    begun = bench.target.with_name(f"{bench.target.name}.unfinished")
    kept = bytes_in(begun)
    segment_all(bench)
    assert str(begun) in asked[0]
    assert bytes_in(begun) == kept
    bench.session.refinement.undo()
    assert "the next press goes on" in bench.panel.note.text()


def test_a_closed_stack_ends_it_and_too_few_classes_are_told(bench, monkeypatch):
    bench.viewer.dims.set_current_step(0, 1)
    bench.settle()
    stroke(bench, [(1, 2, 3)], 1)
    bench.settle()
    assert not bench.panel.run.isEnabled()
    with pytest.raises(ValueError, match="paint two classes on its planes"):
        bench.panel.overlay.start(bench.target)
    draw(bench)
    choose(bench, "z+1")
    go, begun = held(bench, monkeypatch)
    bench.viewer.layers.remove("stack")
    bench.wait(lambda: len(bench.session.images) == 0)
    go.set()
    bench.wait(lambda: not bench.controller.is_busy)
    assert begun == [0, 1, 2]  # of five planes: the worker was stopped
    assert not bench.target.exists()
    assert "All planes: stack" not in bench.names


def test_what_another_stack_of_the_name_began_is_not_replaced_unasked(
    bench, monkeypatch
):
    draw(bench)
    choose(bench, "z+1")
    begun = bench.target.with_name(f"{bench.target.name}.unfinished")
    begun.mkdir()
    (begun / "done.txt").write_text("of another stack")
    asked, no = [], QMessageBox.StandardButton.No
    monkeypatch.setattr(
        QMessageBox, "question", lambda *about: asked.append(about[2]) or no
    )
    segment_all(bench)
    assert str(begun) in asked[0]
    assert (begun / "done.txt").read_text() == "of another stack"
    assert not bench.target.exists()
