"""The classifier on a folder, from the window."""

import numpy as np
import pytest
import tifffile

from napari_hrdv2.core.features.resampled import resized
from napari_hrdv2.files import read_labels
from napari_hrdv2.session import Session
from synthetic import two_textures


@pytest.fixture
def folder(tmp_path, image):
    folder = tmp_path / "micrographs"
    folder.mkdir()
    for name in ("a", "b", "c"):
        tifffile.imwrite(folder / f"{name}.tif", image)
    (folder / "b.tif").write_bytes(b"II*\x00 broken")
    return folder


@pytest.fixture
def panel(bench):
    return bench.widget.apply


def texts(panel, column):
    rows = range(panel.table.rowCount())
    return [panel.table.item(row, column).text() for row in rows]


def test_a_folder_is_segmented_and_failures_are_told(bench, panel, folder, tmp_path):
    bench.segment()
    bench.session.classes.rename(1, "matrix")
    panel.add([folder])
    assert texts(panel, 0) == ["a.tif", "b.tif", "c.tif"]
    out = tmp_path / "out"
    panel.start(out)
    assert panel.run.text() == "Cancel"
    bench.wait(lambda: not panel.run.is_running)
    assert texts(panel, 1)[1] == "failed"
    assert "b.tif" in panel.table.item(1, 1).toolTip()
    assert texts(panel, 1)[0].startswith("matrix ")
    assert panel.note.text().startswith("2 of 3 segmented")
    found = read_labels(out / "a_segmentation.tif")
    np.testing.assert_array_equal(found, bench.session.segmentation)
    table = (out / "phase_fractions.csv").read_text().splitlines()
    assert table[0] == (
        "image,segmentation,matrix,Class 2,"
        '"matrix error (half width, 95 %)","Class 2 error (half width, 95 %)",'
        "doubt (probability of a mean IoU below 0.5),flagged"
    )
    assert len(table) == 3


def test_what_refines_the_screen_refines_the_files(bench, panel, folder, tmp_path):
    bench.segment()
    bench.session.refinement.change(min_object=64 * 80)
    bench.settle()
    panel.add([folder / "a.tif"])
    panel.start(tmp_path / "out")
    bench.wait(lambda: not panel.run.is_running)
    found = read_labels(tmp_path / "out" / "a_segmentation.tif")
    np.testing.assert_array_equal(found, bench.session.segmentation)


def test_without_a_classifier_nothing_starts(bench, panel, folder, tmp_path):
    panel.add([folder])
    assert not panel.run.isEnabled()
    with pytest.raises(ValueError, match="There is no classifier yet"):
        panel.start(tmp_path / "out")


def test_a_cancelled_run_keeps_what_is_done(
    bench, panel, folder, tmp_path, monkeypatch
):
    from napari_hrdv2.session import batch as applying

    bench.segment()
    panel.add([folder / "a.tif", folder / "c.tif"])
    segment = applying.segment_file

    def segment_and_cancel(*values):
        result = segment(*values)
        request = bench.controller.side._jobs._job
        request.stop.set()
        return result

    monkeypatch.setattr(applying, "segment_file", segment_and_cancel)
    panel.start(tmp_path / "out")
    bench.wait(lambda: not panel.run.is_running)
    assert (tmp_path / "out" / "a_segmentation.tif").is_file()
    assert not (tmp_path / "out" / "c_segmentation.tif").exists()
    assert len((tmp_path / "out" / "phase_fractions.csv").read_text().splitlines()) == 2


def test_a_file_is_no_folder_for_results(bench, panel, folder):
    bench.segment()
    panel.add([folder])
    with pytest.raises(ValueError, match="choose a folder"):
        panel.start(folder / "a.tif")


def test_a_folder_twice_is_listed_once(bench, panel, folder):
    panel.add([folder])
    panel.add([folder, folder / "a.tif"])
    assert len(texts(panel, 0)) == 3
    panel.clear.click()
    assert texts(panel, 0) == []


def test_all_planes_of_a_stack_are_segmented(make_viewer, make_bench, image):
    viewer = make_viewer()
    stack = np.stack([image, image + 1, image + 2, image + 3])
    viewer.add_image(stack, axis_labels=("Z", "y", "x"), name="Image")
    bench = make_bench(viewer)
    panel = bench.widget.apply
    bench.session.configure(backbone="filters")
    bench.compute()
    (plane,) = bench.controller.link.index
    for label, columns in ((1, (10, 20)), (2, (60, 70))):
        for column in columns:
            bench.scribbles.paint((plane, 10, column), label)
    bench.wait(lambda: "Segmentation: Image" in bench.names)
    bench.settle()
    panel.start_stack()
    bench.wait(lambda: not panel.run.is_running)
    assert panel.note.text() == "4 of 4 planes segmented."
    result = viewer.layers["Segmentation: Image"].data
    assert (result[:, :, 60:] == 2).mean() > 0.9
    assert (result[:, :, :20] == 1).mean() > 0.9
    assert bench.names.count("Segmentation: Image") == 1


def session_on(pixels, size, **options):
    session = Session()
    session.configure(backbone="filters", **options)
    session.set_image(pixels, pixel_size=(size, "µm"))
    return session


@pytest.mark.parametrize("resamples", [True, False])
def test_all_planes_are_seen_with_the_pixels_of_the_one_shown(
    make_viewer, make_bench, tmp_path, resamples
):
    picture, truth = two_textures(192)
    trained, path = session_on(picture, 1.0), tmp_path / "c.safetensors"
    lines = np.add(*np.indices(truth.shape)) % 40 < 3
    trained.set_scribbles(np.where(lines, truth, 0))
    trained.compute_features()
    trained.train()
    trained.save_classifier(path)
    small = resized(picture, (0.5, 0.5))
    stack, viewer = np.stack([small, small[:, ::-1]]), make_viewer()
    about = {"units": ("um",) * 3, "scale": (1, 2, 2), "name": "Image"}
    viewer.add_image(stack, axis_labels=("Z", "y", "x"), **about)
    bench = make_bench(viewer)
    bench.session.configure(backbone="filters", resamples=resamples)
    assert bench.controller.load_classifier(path)
    bench.compute()
    bench.settle()
    (plane,) = bench.controller.link.index
    bench.widget.apply.start_stack()
    bench.wait(lambda: not bench.widget.apply.run.is_running)
    found, alike = viewer.layers["Segmentation: Image"].data[1 - plane], {}
    for is_on in (True, False):
        alone = session_on(stack[1 - plane], 2.0, resamples=is_on)
        alone.load_classifier(path)
        alone.compute_features()
        alone.train()
        alike[is_on] = np.mean(found == alone.segmentation)
    assert alike[resamples] > 0.99 > alike[not resamples]


def test_planes_whose_mask_changed_meanwhile_are_left_as_they_were(
    make_viewer, make_bench, image, monkeypatch
):
    viewer = make_viewer()
    viewer.add_image(
        np.stack([image, image]), axis_labels=("Z", "y", "x"), name="Image"
    )
    bench = make_bench(viewer)
    bench.session.configure(backbone="filters")
    bench.compute()
    (plane,) = bench.controller.link.index
    for label, column in ((1, 10), (2, 60)):
        bench.scribbles.paint((plane, 10, column), label)
    bench.wait(lambda: "Segmentation: Image" in bench.names)
    bench.settle()
    panel = bench.widget.apply
    monkeypatch.setattr(
        panel,
        "_on_plane",
        lambda done, hear=panel._on_plane: _after_a_mask(bench, done, hear),
    )
    panel.start_stack()
    bench.wait(lambda: not panel.run.is_running)
    assert panel.note.text().startswith("1 of 2 planes segmented. 1 left as they were")


def _after_a_mask(bench, done, hear):
    """Leave something out of the other plane just before its result is heard."""
    entry = bench.session.images[done.key]
    if entry is not bench.session.current:
        entry.set_exclusion(np.eye(*entry.shape, dtype=bool))
    hear(done)


def test_an_image_is_no_stack(bench):
    bench.segment()
    assert not bench.widget.apply.run_stack.isVisibleTo(bench.widget.apply)
    with pytest.raises(ValueError, match="it is no stack"):
        bench.widget.apply.start_stack()


def test_results_and_hidden_files_of_a_folder_are_left_out(bench, panel, folder):
    (folder / "b.tif").unlink()
    bench.segment()
    panel.add([folder])
    panel.start(folder)
    bench.wait(lambda: not panel.run.is_running)
    (folder / "._a.tif").write_bytes(b"Mac OS X")
    panel.clear.click()
    panel.add([folder])
    assert texts(panel, 0) == ["a.tif", "c.tif"]
    assert panel.note.text().startswith("5 files were left out: 1 hidden, 4 written")


def test_what_is_excluded_is_excluded_of_files_of_the_same_size(
    bench, panel, folder, tmp_path, image
):
    tifffile.imwrite(folder / "b.tif", np.pad(image, ((0, 3), (0, 0))))
    bench.segment()
    assert panel.excludes.isHidden()
    mask = np.zeros(image.shape, bool)
    mask[-9:] = True
    bench.session.set_exclusion(mask)
    bench.settle()
    assert not panel.excludes.isHidden()
    panel.add([folder])
    for excluded in (True, False):
        panel.excludes.setChecked(excluded)
        panel.start(tmp_path / str(excluded))
        bench.wait(lambda: not panel.run.is_running)
        found = read_labels(tmp_path / str(excluded) / "a_segmentation.tif")
        assert (found[-9:] == 0).all() == excluded
        told = "nothing of it is excluded" in panel.note.text()
        assert told == excluded


def test_whatever_one_file_raises_is_its_row(
    bench, panel, folder, tmp_path, monkeypatch, image
):
    from napari_hrdv2.files import open_image

    def read(path, *channels):
        if path.name == "b.tif":
            raise IndexError("arrays used as indices")
        return open_image(path, *channels)

    monkeypatch.setattr("napari_hrdv2.files.open_image", read)
    bench.segment()
    panel.add([folder])
    panel.start(tmp_path / "out")
    bench.wait(lambda: not panel.run.is_running)
    assert texts(panel, 1)[1] == "failed"
    assert panel.note.text().startswith("2 of 3 segmented")
    assert "IndexError" in panel.note.text()


def series(bench, folder):
    """Paint on one image as `embedded` sees it; return other images of the series."""
    rng = np.random.default_rng(5)
    bench.segment()
    (folder / "b.tif").unlink()
    noise = rng.integers(0, 255, (64, 80)).astype(np.uint8)
    tifffile.imwrite(folder / "noise.tif", noise)


def run(bench, panel, out):
    panel.start(out)
    bench.wait(lambda: not panel.run.is_running)


def test_what_goes_to_many_images_is_trained_for_a_series(
    bench, panel, folder, tmp_path
):
    series(bench, folder)
    assert bench.session.series.request() is not None
    panel.add([folder])
    run(bench, panel, tmp_path / "out")
    made = bench.session.series.classifier
    assert made.normalisation.kind == "matched"
    assert made.normalisation.reason == "only one image is labelled"
    assert bench.session.classifier.normalisation.kind == "image"
    assert bench.session.series.request() is None
    page = (tmp_path / "out" / "report.html").read_text()
    assert "(normalisation matched, only one image is labelled)" in page
    assert texts(panel, 2)[0] == "labelled"
    assert texts(panel, 2)[2].endswith("flagged")
    assert "1 flagged as doubtful left out" in panel.note.text()


def test_a_second_run_keeps_what_the_first_did(bench, panel, folder, tmp_path):
    series(bench, folder)
    panel.add([folder])
    run(bench, panel, tmp_path / "out")
    before = texts(panel, 1)
    run(bench, panel, tmp_path / "out")
    assert "3 were there from a former run" in panel.note.text()
    assert texts(panel, 1) == before


def test_the_most_doubtful_image_is_opened_to_be_labelled(
    bench, panel, folder, tmp_path
):
    series(bench, folder)
    panel.add([folder])
    assert not panel.label_next.isVisibleTo(panel)
    run(bench, panel, tmp_path / "out")
    assert panel.label_next.isVisibleTo(panel)
    assert panel.report.isVisibleTo(panel)
    panel.label_next.click()
    bench.wait(lambda: len(bench.controller.link.layers.images()) == 2)
    shown = bench.controller.link.layers.images()[-1]
    assert "noise" in shown.name
    assert not panel.label_next.isVisibleTo(panel)


def test_a_chosen_normalisation_is_taken(bench, panel, folder, tmp_path):
    series(bench, folder)
    bench.session.configure(normalisation="shared")
    panel.add([folder / "c.tif"])
    run(bench, panel, tmp_path / "out")
    assert bench.session.series.classifier.normalisation.kind == "shared"
    bench.session.configure(normalisation="image")
    assert bench.session.series.classifier is None
    assert bench.session.features is not None
