"""One HTML file that tells of a batch."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import tifffile
import zarr

from napari_hrdv2 import PixelClassifier
from napari_hrdv2.core.features.normalisation import Normalisation
from napari_hrdv2.core.measure import phase_fractions_with_error
from napari_hrdv2.files import read_labels
from napari_hrdv2.session.batch import write_segmentation
from napari_hrdv2.session.batch.applied import Applied, Job
from napari_hrdv2.session.export.report import (
    _shown,
    _thinned,
    mean_of,
    mean_text,
    report_in,
    write_report,
)

EVIL = '<script>alert("1")</script>&'


def classifier():
    made = PixelClassifier()
    made.classes = np.array([1, 2])
    made.class_names = {1: EVIL, 2: "matrix"}
    made.normalisation = Normalisation("shared", (1.0, 2.0), reason="<b>chosen</b>")
    return made


def applied(folder, name, share, doubt=0.05, size=None):
    labels = np.full((40, 50), 2, np.uint8)
    labels[: round(40 * share)] = 1
    path = folder / f"{name}.tif"
    tifffile.imwrite(path, labels * 60)
    target = folder / f"{name}_segmentation.tif"
    outputs = write_segmentation(
        target, labels, classifier(), type("File", (), {"pixel_size": None, "unit": ""})
    )
    return Applied(
        Job(path, target),
        {1: share, 2: 1 - share},
        tuple(outputs),
        notes=(EVIL,),
        measured=phase_fractions_with_error(labels, (1, 2)),
        doubt=doubt,
        pixel_size=size,
    )


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)


def test_it_needs_no_other_file_and_shows_texts_as_they_are(tmp_path):
    done = [applied(tmp_path, name, 0.25) for name in ("a", "b")]
    broken = Applied(Job(tmp_path / "c", tmp_path / "d"), error=EVIL)
    write_report(tmp_path / "r.html", [*done, broken], classifier(), {EVIL: EVIL})
    page = Page((tmp_path / "r.html").read_text())
    tags = [tag for tag, _ in page.tags]
    assert "script" not in tags
    assert "b" not in tags
    assert tags.count("img") == 4
    sources = [about["src"] for tag, about in page.tags if tag == "img"]
    kinds = [source.partition(";base64,")[0] for source in sources]
    assert kinds == ["data:image/jpeg", "data:image/png"] * 2
    ticks = [text for text in page.text if text.endswith(" %") and "±" not in text]
    assert ticks == ["0 %", "40 %", "80 %", "0 %", "50 %", "100 %"]  # of two plots
    assert tags.count("circle") == 4
    text = "".join(page.text)
    assert text.count(EVIL) >= 6
    assert "(normalisation shared, <b>chosen</b>)" in text


def test_flagged_images_are_in_no_mean_and_marked(tmp_path):
    done = [applied(tmp_path, "a", 0.25), applied(tmp_path, "b", 1.0, doubt=0.9)]
    measured, told = mean_of(done)
    assert measured.together.phases[0].fraction == 0.25
    assert told == "Mean of 1 of 2 images; 1 flagged as doubtful left out"
    write_report(tmp_path / "r.html", done, classifier(), {})
    page = Page((tmp_path / "r.html").read_text())
    rows = [about.get("class") for tag, about in page.tags if tag == "tr"]
    assert rows.count("flagged") == 1
    assert "90%, flagged" in page.text
    assert mean_of(done, with_flagged=True)[0].together.phases[0].fraction == 0.625
    text = mean_text(done, {2: "matrix"})
    assert "left out: class 1 25.0" in text
    assert "Mean of 2 of 2 images: class 1 62.5 ±" in text
    assert mean_of(done[1:]) == (
        None,
        "Mean of 0 of 1 images; 1 flagged as doubtful left out: there is none",
    )


def test_the_mean_is_by_area(tmp_path):
    first = applied(tmp_path, "a", 0.25, size=(1.0, "nm"))
    second = applied(tmp_path, "b", 0.75, size=(2.0, "nm"))
    measured, _ = mean_of([first, second])
    found = measured.together.phases[0].fraction
    assert abs(found - (0.25 + 4 * 0.75) / 5) < 1e-12


def test_a_page_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "report.html").write_text("<html>mine</html>")
    path = report_in(tmp_path)
    assert path.name == "report_2.html"
    write_report(path, [applied(tmp_path, "a", 0.5)], classifier(), {})
    assert report_in(tmp_path) == path


def test_marks_are_where_the_fractions_are(tmp_path):
    done = [applied(tmp_path, name, share) for name, share in (("a", 0.25), ("b", 0.5))]
    write_report(tmp_path / "r.html", done, classifier(), {})
    text = (tmp_path / "r.html").read_text()
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', text)[:2]]
    base = float(re.search(r'y1="([\d.]+)"', text).group(1))
    assert abs((base - heights[1]) / (base - heights[0]) - 2) < 0.02


def test_colours_and_a_picture_that_is_gone_are_no_harm(tmp_path):
    one = applied(tmp_path, "a", 0.5)
    rgb = np.random.default_rng(0).integers(0, 255, (301, 45, 3), np.uint8)
    tifffile.imwrite(one.job.file, rgb, photometric="rgb")
    other = applied(tmp_path, "b", 0.5)
    other.job.file.unlink()
    write_report(tmp_path / "r.html", [one, other], classifier(), {})
    assert (tmp_path / "r.html").read_text().count("<img") == 3


def test_what_is_flagged_for_a_class_that_is_hardly_there_says_so(tmp_path):
    empty = applied(tmp_path, "a", 0.0, doubt=0.9).with_reason(classifier())
    assert empty.notes[-1].endswith(
        f"hardly any {EVIL} was found, which doubt counts; look."
    )
    for one in (applied(tmp_path, "b", 0.0), applied(tmp_path, "c", 0.5, doubt=0.9)):
        assert one.with_reason(classifier()) is one


def test_a_result_by_blocks_is_shown_in_its_colours(tmp_path):
    one = applied(tmp_path, "a", 0.25)
    labels = read_labels(one.outputs[0])
    folder = tmp_path / "a_segmentation.zarr"
    zarr.save_array(folder, labels)
    write_report(tmp_path / "r.html", [one], classifier(), {})
    first = (tmp_path / "r.html").read_text()
    by_blocks = replace(one, outputs=(folder,))
    write_report(tmp_path / "r.html", [by_blocks], classifier(), {})
    assert (tmp_path / "r.html").read_text() == first


def test_an_image_of_one_bit_and_one_with_missing_pixels_have_a_picture():
    assert _shown(np.eye(30, dtype=bool)).tolist() == (255 * np.eye(30)).tolist()
    missing = np.where(np.eye(30) > 0, np.nan, 7.0)
    assert _shown(missing).dtype == np.uint8


def test_a_large_image_is_thinned_band_by_band():
    data = np.arange(2500 * 700).reshape(2500, 700)
    assert np.array_equal(_thinned(data), data[::12, ::12])
    small = data[:50, :40]
    assert _thinned(small) is not None
    assert np.array_equal(_thinned(small), small)


def test_five_hundred_marks_leave_room_for_each_other(tmp_path):
    one = applied(tmp_path, "a", 0.25)
    one.job.file.unlink()
    write_report(tmp_path / "r.html", [one] * 500, classifier(), {})
    text = (tmp_path / "r.html").read_text()
    assert set(re.findall(r' r="([\d.]+)"', text)) == {"1.5"}
