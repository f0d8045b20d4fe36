import csv
import runpy

import numpy as np
import pytest
import tifffile

from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.core.postprocess.refinement import clean, refine
from napari_hrdv2.files import read_image, read_label_classes, read_labels
from napari_hrdv2.session import Result, Session, compute
from napari_hrdv2.session.export import FORMATS, export_all, plan_export
from small_networks import adapted_embedded


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function that runs the script that was exported, and what it says."""

    def runs(folder):
        monkeypatch.chdir(folder)
        runpy.run_path("segment.py", run_name="__main__")
        return capsys.readouterr().out

    return runs


@pytest.fixture
def painted(trained):
    entry = trained.current
    entry.name, entry.pixel_size = "alloy 1", (0.25, "micrometer")
    trained.classes.rename(2, "pore")
    return trained


def test_everything_is_written_with_names_colours_and_size(painted, tmp_path):
    exported = export_all(
        painted, tmp_path / "new", formats={one.name for one in FORMATS} - {"zarr"}
    )
    names = sorted(path.name for path in exported.paths)
    assert names == [
        "alloy_1_colors.png",
        "alloy_1_image.tif",
        "alloy_1_labels.tif",
        "alloy_1_scribbles.tif",
        "fractions.csv",
        "methods.md",
        "segment.py",
    ]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == names
    path = tmp_path / "new" / "alloy_1_labels.tif"
    np.testing.assert_array_equal(read_labels(path), painted.segmentation)
    assert read_label_classes(path).names[2] == "pore"
    # An export spells the unit as people do.
    assert (read_image(path).pixel_size, read_image(path).unit) == (0.25, "µm")
    scribbles = read_labels(tmp_path / "new" / "alloy_1_scribbles.tif")
    np.testing.assert_array_equal(scribbles, painted.scribbles.labels)


def test_the_table_holds_the_phase_fractions(painted, tmp_path):
    export_all(painted, tmp_path, formats=["fractions"])
    with open(tmp_path / "fractions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["name"]) for row in rows] == [
        ("alloy 1", "Class 1"),
        ("alloy 1", "pore"),
    ]
    for row, fraction in zip(rows, painted.phase_fractions().values(), strict=True):
        assert float(row["fraction"]) == pytest.approx(fraction)


def test_ome_zarr_holds_segmentation_and_scribbles(painted, tmp_path):
    pytest.importorskip("zarr")
    from napari_hrdv2.files import read_ome_zarr

    (path,) = export_all(painted, tmp_path, formats=["zarr"]).paths
    found = read_ome_zarr(path, name="segmentation")
    np.testing.assert_array_equal(found.labels, painted.segmentation)
    assert found.classes.names[2] == "pore"
    scribbles = read_ome_zarr(path, name="scribbles").labels
    np.testing.assert_array_equal(scribbles, painted.scribbles.labels)


def test_a_missing_extra_costs_the_other_files_nothing(painted, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise ImportError("writing OME-Zarr needs the package zarr")

    monkeypatch.setattr("napari_hrdv2.files.write_ome_zarr", refuse)
    exported = export_all(painted, tmp_path, formats=["zarr", "labels"])
    assert exported.notes == ("writing OME-Zarr needs the package zarr.",)
    assert [path.name for path in exported.paths] == ["alloy_1_labels.tif"]


def test_the_script_segments_as_the_window_did(painted, tmp_path, run):
    mask = np.zeros((40, 48), bool)
    mask[36:, 10:] = True
    painted.set_exclusion(mask)
    painted.train(force=True)
    export_all(painted, tmp_path, formats=["script"])
    said = run(tmp_path)
    assert "note:" not in said
    again = read_labels(tmp_path / "alloy_1_segmentation.tif")
    assert np.mean(again == painted.segmentation) > 0.99
    assert not again[mask].any()
    assert read_image(tmp_path / "alloy_1_segmentation.tif").pixel_size == 0.25


def test_the_script_takes_the_weights_that_were_given(session, labels, tmp_path, run):
    session.configure(weights=str(adapted_embedded(tmp_path / "adapted.safetensors")))
    session.set_scribbles(labels)
    session.current.name = "alloy 1"
    session.compute_features()
    session.train()
    export_all(session, tmp_path, formats=["script"])
    assert "note:" not in run(tmp_path)
    again = read_labels(tmp_path / "alloy_1_segmentation.tif")
    assert np.mean(again == session.segmentation) > 0.99
    assert "adapted.safetensors" in (tmp_path / "segment.py").read_text()


def test_the_script_trains_on_all_images_that_were_painted(
    image, labels, tmp_path, run
):
    session = Session()
    for key, turned in (("a", image), ("b", image[:, ::-1].astype(np.uint16) * 50)):
        session.set_image(turned, key, name=key, plane={"Z": 1} if key == "b" else {})
        session.set_scribbles(labels if key == "a" else labels[:, ::-1])
        session.compute_features()
        session.train()
    assert str(session.current.key) == "b"
    export_all(session, tmp_path, formats=["script", "labels"])
    assert "note:" not in run(tmp_path)
    again = read_labels(tmp_path / "b_Z1_segmentation.tif")
    assert np.mean(again == session.segmentation) > 0.99
    assert not (tmp_path / "a_labels.tif").exists()


def test_a_loaded_classifier_goes_with_the_script(painted, tmp_path, image, run):
    painted.save_classifier(tmp_path / "kept.safetensors")
    other = Session()
    other.set_image(image, name="alloy")
    other.load_classifier(tmp_path / "kept.safetensors")
    other.compute_features()
    other.train()
    export_all(other, tmp_path / "out", formats=["script"])
    run(tmp_path / "out")
    again = read_labels(tmp_path / "out" / "alloy_segmentation.tif")
    np.testing.assert_array_equal(again, other.segmentation)


def test_the_file_of_an_image_is_used_if_it_is_the_same(painted, tmp_path, image):
    source = tmp_path / "source.tif"
    tifffile.imwrite(source, image)
    painted.current.source = str(source)
    exported = export_all(painted, tmp_path / "out", formats=["script"])
    assert "source_image.tif" not in {path.name for path in exported.paths}
    assert str(source) in (tmp_path / "out" / "segment.py").read_text(encoding="utf-8")
    tifffile.imwrite(source, image + 1)
    export_all(painted, tmp_path / "out", formats=["script"], replace=True)
    copied = read_image(tmp_path / "out" / "source_image.tif").data
    np.testing.assert_array_equal(copied, image)


def test_the_refined_result_is_exported(painted, tmp_path, run):
    painted.refinement.change(smoothing="guided", radius=3, min_object=30)
    painted.refinement.refine()
    export_all(painted, tmp_path, formats=["labels", "script"])
    np.testing.assert_array_equal(
        read_labels(tmp_path / "alloy_1_labels.tif"), painted.segmentation
    )
    assert "min_object=30" in (tmp_path / "segment.py").read_text(encoding="utf-8")
    assert "guided filter" in (tmp_path / "methods.md").read_text(encoding="utf-8")
    run(tmp_path)
    again = read_labels(tmp_path / "alloy_1_segmentation.tif")
    assert np.mean(again == painted.segmentation) > 0.98


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
@pytest.mark.parametrize("shape", [(40, 48), (40, 48, 3), (40, 48, 4)])
def test_images_are_written_so_that_they_read_the_same(tmp_path, dtype, shape):
    from napari_hrdv2.files import write_image

    image = (np.random.default_rng(0).random(shape) * 200).astype(dtype)
    write_image(tmp_path / "a.tif", image, pixel_size=0.5, unit="nm")
    found = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(found.data, image)
    assert (found.pixel_size, found.unit) == (0.5, "nm")


def test_images_of_one_name_get_files_of_their_own(image, labels, tmp_path):
    session = Session()
    for key in ("a", "b"):
        session.set_image(image.copy(), key, name="same")
        session.set_scribbles(labels)
        session.compute_features()
        session.train()
    exported = export_all(
        session, tmp_path, formats=["labels", "fractions"], all_images=True
    )
    names = [path.name for path in exported.paths]
    assert names == ["same_labels.tif", "same_2_labels.tif", "fractions.csv"]
    table = (tmp_path / "fractions.csv").read_text(encoding="utf-8")
    assert "same_2," in table


def test_files_that_are_there_are_not_replaced_unasked(painted, tmp_path):
    (tmp_path / "alloy_1_labels.tif").write_text("mine")
    with pytest.raises(FileExistsError, match="alloy_1_labels.tif already"):
        export_all(painted, tmp_path, formats=["labels", "colors"])
    assert [path.name for path in tmp_path.iterdir()] == ["alloy_1_labels.tif"]
    export_all(painted, tmp_path, formats=["labels"], replace=True)
    assert read_labels(tmp_path / "alloy_1_labels.tif").any()


def test_with_nothing_to_export_a_sentence_says_what_to_do(session, labels, tmp_path):
    session.set_scribbles(labels)
    with pytest.raises(ValueError, match="segmentation: there is none to export yet"):
        export_all(session, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_unknown_kinds_are_named(painted, tmp_path):
    with pytest.raises(ValueError, match="formats: mp3 is not in labels, colors"):
        export_all(painted, tmp_path, formats=["labels", "mp3"])
    with pytest.raises(ValueError, match="formats: nothing is not in"):
        export_all(painted, tmp_path, formats=[])


def test_an_export_can_be_cancelled(painted, tmp_path):
    request = plan_export(painted, tmp_path)
    with pytest.raises(Cancelled):
        compute(request, should_stop=lambda: True)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def two(image, labels):
    """The first image is of a former classifier; scribbles are on the second."""
    session = Session()
    for key in ("a", "b"):
        session.set_image(image.copy(), key, name=key)
        session.set_scribbles(labels)
        session.compute_features()
        session.train()
    return session


def test_all_images_are_written_by_the_present_classifier(two, tmp_path):
    old = two.images["a"].result
    assert old.fingerprint != two.classifier_fingerprint
    flipped = old.labels[:, ::-1].copy()  # as if scribbles had changed very much
    two.images["a"].result = Result(flipped, old.fractions, old.fingerprint)
    two.refinement.change(smoothing="guided", radius=3, min_object=30)
    export_all(two, tmp_path, formats=["labels", "script"], all_images=True)
    entry = two.images["a"]
    expected = refine(
        two.classifier.predict_proba(entry.features),
        entry.image,
        two.classifier.classes,
        two.refinement.settings,
    )
    np.testing.assert_array_equal(read_labels(tmp_path / "a_labels.tif"), expected)
    assert "guided filter" in (tmp_path / "methods.md").read_text(encoding="utf-8")


def test_an_image_that_was_never_shown_is_segmented_on_the_way(painted, tmp_path):
    other = painted.image[:, ::-1].copy()
    painted.images.add(other, "b", name="b")
    painted.images.add(np.dstack([other, other // 2, other]), "c", name="c")
    exported = export_all(painted, tmp_path, formats=["labels"], all_images=True)
    assert [path.name for path in exported.paths] == [
        "alloy_1_labels.tif",
        "b_labels.tif",
    ]
    found = read_labels(tmp_path / "b_labels.tif")
    assert found[20, [3, 45]].tolist() == [2, 1]
    assert "c: features: embedded has" in exported.text
    painted.set_image(other, "b")
    painted.set_scribbles(np.zeros(other.shape, np.uint8))
    painted.compute_features()
    painted.train()
    np.testing.assert_array_equal(found, painted.segmentation)


def test_images_of_a_former_classifier_without_features_are_named(two, tmp_path):
    two.images["a"].evict()
    exported = export_all(two, tmp_path, formats=["labels"], all_images=True)
    assert [path.name for path in exported.paths] == ["b_labels.tif"]
    assert "of an older classifier or refined otherwise: a;" in exported.text


def test_a_refinement_that_is_on_its_way_is_waited_for(painted, tmp_path):
    former = painted.current.result
    speck = former.labels.copy()
    speck[30:32, 10:12] = 2
    painted.current.result = Result(speck, former.fractions, former.fingerprint)
    painted.refinement.change(min_object=400)
    assert painted.refinement.is_pending
    export_all(painted, tmp_path, formats=["labels", "script"])
    found = read_labels(tmp_path / "alloy_1_labels.tif")
    np.testing.assert_array_equal(found, clean(speck, 400))
    assert (found != speck).any()
    assert "400 pixels" in (tmp_path / "methods.md").read_text(encoding="utf-8")


def test_no_script_tells_of_a_result_that_is_not_as_the_settings_say(painted, tmp_path):
    painted.current.evict()
    painted.refinement.change(smoothing="guided")
    exported = export_all(painted, tmp_path, formats=["labels", "script"])
    assert [path.name for path in exported.paths] == ["alloy_1_labels.tif"]
    assert "No script was written: the result is of an older" in exported.text
    with pytest.raises(ValueError, match="script: the result is of an older"):
        export_all(painted, tmp_path, formats=["script"])


def test_without_a_classifier_the_results_are_written_and_no_script(painted, tmp_path):
    painted._classifier.give_up_fit()
    exported = export_all(painted, tmp_path, formats=["labels", "script"])
    assert [path.name for path in exported.paths] == ["alloy_1_labels.tif"]
    assert "No script was written: there is no classifier" in exported.text


def test_the_exclusion_mask_is_looked_at_in_the_worker(painted, tmp_path, monkeypatch):
    from napari_hrdv2.session.export import content

    painted.set_exclusion(np.arange(40)[:, None] * np.ones(48) > 36)
    painted.train(force=True)
    masks = []
    rectangles_of = content.rectangles_of
    monkeypatch.setattr(
        content, "rectangles_of", lambda mask: masks.append(mask) or rectangles_of(mask)
    )
    request = plan_export(painted, tmp_path, formats=["script"])
    assert masks == []
    compute(request)
    assert len(masks) == 1


def test_a_class_that_left_the_list_has_its_fraction_in_the_table(painted, tmp_path):
    painted.classes.remove(2)
    export_all(painted, tmp_path, formats=["fractions"])
    with open(tmp_path / "fractions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["Class 1", "class 2"]
    assert sum(float(row["fraction"]) for row in rows) == pytest.approx(1)
