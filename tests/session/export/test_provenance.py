from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import tifffile

import napari_hrdv2 as hr
from micrographs import make_sample
from napari_hrdv2.core.features.options import FeatureOptions
from napari_hrdv2.core.measure import Fractions, PhaseFraction
from napari_hrdv2.core.postprocess.refinement import Refinement, refine
from napari_hrdv2.files import (
    read_image,
    read_label_classes,
    read_labels,
    write_labels,
)
from napari_hrdv2.session.classes import ClassInfo
from napari_hrdv2.session.export.content import ExportImage, Provenance
from napari_hrdv2.session.export.methods import methods_paragraph
from napari_hrdv2.session.export.script import python_script
from napari_hrdv2.session.planes import PlaneKey

CLASSES = {1: ClassInfo("matrix", "#ff0000"), 2: ClassInfo("γ′ “phase”", "#0000ff")}
VERSIONS = {"Python": "3.11.7", "napari-hrdv2": "0.1.0", "NumPy": "2.4.6"}
LIVE = 1e-4  # the tolerance with which scribbles are answered in the window


class Work:
    """What a user does: paint bit by bit, and see the result of a warm fit."""

    def __init__(self, folder: Path, backbone: str, *, dtype: str = "uint8") -> None:
        sample = make_sample("particles", (64, 80))
        self.image = sample.image.astype(dtype) * (1 if dtype == "uint8" else 100)
        self.labels = np.where(np.isin(sample.scribbles, [1, 2]), sample.scribbles, 0)
        self.exclusion = np.zeros((64, 80), bool)
        self.exclusion[56:] = True
        self.image_path = folder / "alloy 1.tif"
        self.labels_path = folder / "scribbles.tif"
        tifffile.imwrite(
            self.image_path,
            self.image,
            imagej=True,
            resolution=(2.0, 2.0),
            metadata={"unit": "um"},
        )
        write_labels(self.labels_path, self.labels)
        self.features = hr.compute_features(
            self.image, hr.load_backbone(backbone), value_range=self.levels
        )
        self.classifier = hr.PixelClassifier(tolerance=LIVE)
        kept = np.where(self.exclusion, 0, self.labels)
        for columns in (20, 40, 60, 80):
            painted = kept.copy()
            painted[:, columns:] = 0
            if len(np.unique(painted)) == 3:
                self.classifier.fit(self.features, painted, exclusion=self.exclusion)

    @property
    def levels(self) -> tuple[float, float] | None:
        """As the window has them: those of the image, if it is not of 8 bit."""
        if self.image.dtype == np.uint8:
            return None
        return float(self.image.min()), float(self.image.max())

    @property
    def segmentation(self) -> np.ndarray:
        segmentation = self.classifier.predict(self.features)
        segmentation[self.exclusion] = 0
        return segmentation

    @property
    def entry(self) -> ExportImage:
        return ExportImage(
            PlaneKey("alloy"),
            "alloy 1",
            "alloy 1",
            self.image,
            pixel_size=(0.5, "µm"),
            value_range=self.features.part_options[0].value_range,
            scribble_pixels={1: 1, 2: 1},
            exclusion=self.exclusion,
        )

    def made(self, **changes: object) -> Provenance:
        made = Provenance(
            FeatureOptions.of(self.features.part_options),
            CLASSES,
            weights_hashes=tuple(
                part.weights_hash for part in self.features.part_options
            ),
            labels_hash=self.classifier.labels_hash,
            versions=VERSIONS,
            date="2026-11-21",
        )
        return replace(made, **changes)

    def script(self, **changes: object) -> str:
        files = [(str(self.image_path), str(self.labels_path))]
        return python_script(self.made(**changes), [self.entry], files)


def _run(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    exec(compile(script, "script.py", "exec"), {"__name__": "__main__"})


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path, "embedded")


@pytest.mark.slow
def test_the_script_runs_on_its_own_and_gives_the_live_segmentation(
    work: Work, tmp_path: Path
) -> None:
    script = work.script()
    (tmp_path / "again.py").write_text(script, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "again.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    path = tmp_path / "alloy 1_segmentation.tif"
    assert (read_labels(path) == work.segmentation).mean() >= 0.99
    assert not read_labels(path)[work.exclusion].any()
    found = read_image(path)
    assert (found.pixel_size, found.unit) == (0.5, "µm")
    assert read_label_classes(path).names[2] == CLASSES[2].name
    assert path.with_suffix(".png").is_file()
    assert "note:" not in done.stdout
    assert "matrix" in done.stdout


@pytest.mark.parametrize("backbone", ["filters", "embedded+filters"])
def test_the_script_is_exact_against_a_fit_from_scratch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: str
) -> None:
    work = Work(tmp_path, backbone, dtype="uint16")
    kept = np.where(work.exclusion, 0, work.labels)
    work.classifier = hr.PixelClassifier().fit(
        work.features, kept, exclusion=work.exclusion
    )
    script = work.script()
    _run(script, tmp_path, monkeypatch)
    found = read_labels(tmp_path / "alloy 1_segmentation.tif")
    assert np.array_equal(found, work.segmentation)


def test_the_script_refines_as_it_was_done(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refinement = Refinement(smoothing="guided", radius=3, min_object=6)
    kept = np.where(work.exclusion, 0, work.labels)
    work.classifier = hr.PixelClassifier().fit(
        work.features, kept, exclusion=work.exclusion
    )
    expected = refine(
        work.classifier.predict_proba(work.features),
        work.image,
        work.classifier.classes,
        refinement,
        exclusion=work.exclusion,
    )
    _run(work.script(refinement=refinement), tmp_path, monkeypatch)
    found = read_labels(tmp_path / "alloy 1_segmentation.tif")
    assert np.array_equal(found, expected)
    assert not np.array_equal(found, work.segmentation)


def test_the_script_trains_on_painted_images_and_segments_all(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    painted = replace(work.entry, stem="alloy 1_2")
    other = replace(work.entry, scribble_pixels={}, exclusion=None)
    path, labels_path = str(work.image_path), str(work.labels_path)
    files = [(path, None), (path, labels_path)]
    script = python_script(work.made(), [other, painted], files)
    _run(script, tmp_path, monkeypatch)
    first = read_labels(tmp_path / "alloy 1_segmentation.tif")
    second = read_labels(tmp_path / "alloy 1_2_segmentation.tif")
    assert np.array_equal(first[:56], second[:56])
    assert first[56:].all()


def test_the_script_uses_a_saved_classifier_as_it_is(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "alloy.safetensors"
    work.classifier.save(path)
    image = replace(work.entry, scribble_pixels={})
    made = work.made(classifier_file=str(path))
    script = python_script(made, [image], [(str(work.image_path), None)])
    _run(script, tmp_path, monkeypatch)
    found = read_labels(tmp_path / "alloy 1_segmentation.tif")
    assert np.array_equal(found, work.segmentation)


def test_the_script_says_when_scribbles_or_weights_are_others(
    work: Work,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = work.script(labels_hash="another", weights_hashes=("0123",))
    _run(script, tmp_path, monkeypatch)
    said = capsys.readouterr().out
    assert "note: the scribbles are not those of then" in said
    assert "note: the weights of the backbone are not those of then" in said


def _image(name: str, shape=(4, 5), pixels=MappingProxyType({1: 3, 2: 4}), **about):
    image = np.zeros(shape, np.uint8)
    return ExportImage(
        PlaneKey(name), name, name, image, scribble_pixels=pixels, **about
    )


def test_painted_classes_without_a_name_get_the_usual_one() -> None:
    made = Provenance(FeatureOptions("embedded"), CLASSES)
    image = _image("a", pixels={1: 3, 9: 4})
    script = python_script(made, [image], [("a.tif", "l.tif")])
    assert "9: 'Class 9'" in script
    assert "2: 'γ′ “phase”'" in script


@pytest.mark.parametrize("name", ["a\"b'c\\d.tif", "a\nb.tif", '""" + 1/0 + """'])
def test_any_name_of_a_file_or_class_is_quoted(name: str) -> None:
    classes = {1: ClassInfo(name, "#000000"), 2: ClassInfo("b", "#ffffff")}
    made = Provenance(FeatureOptions("embedded"), classes)
    script = python_script(made, [_image(name)], [(name, name)])
    names: dict = {}
    head = script[script.index("IMAGES =") : script.index("BACKBONE =")]
    exec(compile(head, "head", "exec"), names)
    assert names["IMAGES"][0][:2] == (name, name)
    assert names["NAMES"][1] == name
    compile(script, "script", "exec")


EXCLUSION = np.arange(200)[:, None] * np.ones(300) >= 180
PAPER_IMAGE = _image(
    "alloy.tif",
    (200, 300),
    {1: 200, 2: 100},
    pixel_size=(0.25, "µm"),
    value_range=(0.0, 255.0),
    exclusion=EXCLUSION,
)


def _paragraph(*images: ExportImage, backbone="dinov2-small", **changes) -> str:
    """Return the paragraph of images in which 70 % are matrix."""
    made = Provenance(
        FeatureOptions(backbone, "shift:1,2", interpolation="bilinear"),
        CLASSES,
        weights_hashes=("c0ffee",),
        refinement=Refinement(
            smoothing="guided", radius=5, strength=0.4, min_object=12, fill_holes=7
        ),
        interval="95 % confidence interval",
        versions=VERSIONS,
        date="2026-11-21",
    )
    phases = PhaseFraction(1, 0.7, 0.05, 700), PhaseFraction(2, 0.3, 0.05, 300)
    images = images or (PAPER_IMAGE,)
    fractions = {image.stem: Fractions(phases, 1000, "") for image in images}
    return methods_paragraph(replace(made, **changes), images, fractions)


@pytest.mark.parametrize(("count", "is_said"), [(500, False), (501, True)])
def test_the_paragraph_says_that_of_many_pixels_some_were_used(count, is_said) -> None:
    paragraph = _paragraph(replace(PAPER_IMAGE, scribble_pixels={1: count, 2: 100}))
    sentence = (
        "Of a class with more than 500 painted pixels in an image, one was used of "
        "those in each block of 2 × 2 pixels, and at most 5000, weighted to stand for "
        "all of them."
    )
    assert (sentence in paragraph) == is_said


def test_the_paragraph_says_what_was_done() -> None:
    assert _paragraph() == (
        "The micrograph alloy.tif (300 × 200 pixels, pixel size 0.25 µm) was segmented "
        "with napari-hrdv2 0.1.0. Each pixel was described by features of the frozen "
        "backbone dinov2-small (weights c0ffee) [1], following HR-Dv2 [2]. Tokens one "
        "patch apart were computed on 17 transformed copies of the image (shift:1,2), "
        "upsampled to pixels (bilinear interpolation) and averaged. Grey levels of "
        "0–255 were scaled to 0–1. Scribbles were painted by hand for the classes "
        "matrix (200 pixels) and γ′ “phase” (100 pixels), 0.50 % of the pixels in all. "
        "A multinomial logistic regression with L2 penalty on standardised, slightly "
        "whitened features (C = 0.03, all classes weighted alike, as were all painted "
        "places of 16 × 16 pixels of a class) was fitted to these pixels and then, 2 "
        "times, to these and to those of a background sample of 2000 pixels that were "
        "not labelled and that it was sure of (self-training) and assigned every pixel "
        "to a class. "
        "Regions that show no material (10.00 % of alloy.tif) were excluded "
        "from training, segmentation and measurement. The class "
        "probabilities were smoothed along the edges of the image by a guided filter "
        "(radius 5 pixels, strength 0.4). Objects of fewer than 12 pixels were given "
        "to the class around them and holes of fewer than 7 pixels were filled. The "
        "area fractions were (95 % confidence interval in brackets): matrix 70.00 % "
        "[65.00 % to 75.00 %] and γ′ “phase” 30.00 % [25.00 % to 35.00 %]. The "
        "computation ran on 2026-11-21 with Python 3.11.7 and NumPy 2.4.6.\n"
        "\n"
        "[1] M. Oquab et al., DINOv2: Learning robust visual features without "
        "supervision, arXiv:2304.07193 (2023).\n"
        "[2] R. Docherty, A. Vamvakeros, S. J. Cooper, Upsampling DINOv2 features for "
        "unsupervised vision tasks and weakly supervised materials segmentation, "
        "arXiv:2410.19836 (2024).\n"
    )


@pytest.mark.parametrize(
    ("backbone", "cited"),
    [
        ("embedded", []),
        ("filters", []),
        ("dinov2-base-reg", ["2304.07193", "2309.16588"]),
        ("dinov3-small", ["2508.10104"]),
        ("dino-small-8", ["2104.14294"]),
        ("dino-small-8@k9,k11", ["2104.14294"]),
        ("neco-small", ["2408.11054", "2304.07193"]),
        ("neco-small:dinov2r-xr-teacher", ["2408.11054", "2304.07193", "2309.16588"]),
        ("spit-small", ["2408.07680"]),
        ("rvit-small", ["2408.07680"]),
        ("deit-small", ["2012.12877"]),
        ("vit-small", ["2010.11929", "2106.10270"]),
    ],
)
def test_the_paragraph_cites_the_backbone_that_was_used(
    backbone: str, cited: list[str]
) -> None:
    paragraph = _paragraph(backbone=backbone)
    found = re.findall(r"^\[\d\].*arXiv:(\S+)", paragraph, re.MULTILINE)
    assert found == [*cited, "2410.19836"]


def test_joined_backbones_are_cited_one_by_one() -> None:
    joined = "dinov2-small+filters"
    paragraph = _paragraph(backbone=joined, weights_hashes=("c0ffee", ""))
    assert "backbones dinov2-small (weights c0ffee) [1] and filters, " in paragraph


@pytest.mark.parametrize(
    ("backbone", "asked", "written"),
    [
        ("dinov2-small+filters", "auto", "lattice:2+identity"),
        ("embedded+dinov2-small", "published", "identity+shift:1,2"),
        ("embedded+filters", "auto", "identity"),
        ("dinov2-small+filters", "flip", "flip"),
    ],
)
def test_a_script_says_what_auto_was(backbone: str, asked: str, written: str) -> None:
    made = Provenance(FeatureOptions(backbone, asked), CLASSES)
    script = python_script(made, [PAPER_IMAGE], [("a.tif", None)])
    assert f"    'transforms': {written!r},\n" in script
    again = replace(made.options, transforms=written)
    again.check()
    assert again.transform_sets == made.options.transform_sets


def test_what_was_not_done_is_not_said() -> None:
    options = FeatureOptions("embedded", transforms="identity")
    made = Provenance(options, CLASSES, balanced=False, versions={})
    paragraph = methods_paragraph(made, [_image("a", (20, 30), {1: 1, 2: 5})], {})
    for absent in ("smoothed", "excluded", "fractions", "pixel size", "Grey", "["):
        assert absent not in paragraph.replace("HR-Dv2 [1]", "").split("\n\n")[0]
    assert "matrix (1 pixel)" in paragraph
    assert "on the image as it is and upsampled to pixels (bilinear" in paragraph
    assert "unweighted" in paragraph


def test_several_images_are_told_apart() -> None:
    other = _image("b.tif", (200, 300), {})
    paragraph = _paragraph(PAPER_IMAGE, other)
    assert "The micrographs alloy.tif (" in paragraph
    assert "Scribbles were painted by hand on alloy.tif for" in paragraph
    assert "0.50 % of the pixels" in paragraph
    assert "The area fractions of b.tif were" in paragraph


def test_a_classifier_from_a_file_is_named() -> None:
    paragraph = _paragraph(classifier_file="alloy.safetensors")
    assert "had been trained before (alloy.safetensors)" in paragraph
    assert "Scribbles" not in paragraph
