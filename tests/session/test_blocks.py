"""Images that are too large for their features: segmented where one looks."""

import numpy as np
import pytest

from napari_hrdv2.core.errors import Cancelled
from napari_hrdv2.core.features.blocks import BlockFeatures
from napari_hrdv2.core.postprocess.refinement import clean, refine
from napari_hrdv2.files.lazy import LazyImage
from napari_hrdv2.session import Session, Stage, compute
from napari_hrdv2.session.batch.whole import is_taken, whole_request
from napari_hrdv2.session.blocks import features as rooms
from napari_hrdv2.session.blocks.maps import UNLIKE
from napari_hrdv2.session.export import plan_export
from napari_hrdv2.session.measurement import Scope
from napari_hrdv2.session.planes import Plane, is_lazy

BLOCK, SHAPE, COUNT = 256, (700, 900), 12
VIEW = slice(0, 120), slice(0, 120)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch, tmp_path):
    """All that is lazy is large, and spilled into a folder of the test."""
    monkeypatch.setattr("napari_hrdv2.session.features.BLOCK", BLOCK)
    monkeypatch.setattr("napari_hrdv2.session.planes.LARGE", 2**16)
    monkeypatch.setattr(rooms, "user_cache_path", lambda *_, **__: tmp_path)
    monkeypatch.setattr("napari_hrdv2.core.features.blocks.features.SAMPLED_BLOCKS", 2)
    monkeypatch.setattr("napari_hrdv2.files.label_store.SMALLEST_LEVEL", 256)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "all.zarr"


@pytest.fixture
def truth():
    """A chessboard of two classes."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return (rows // 130 + columns // 110) % 2 + 1


@pytest.fixture
def pixels(truth):
    noise = np.random.default_rng(0).normal(0, 8, SHAPE)
    return (60 * truth + noise + 40).clip(0, 255).astype(np.uint8)


class Reads(list):
    """An image that counts what is read of it, and cannot be read whole."""

    def plane(self, pixels):
        def read_part(part):
            self.append(part)
            return pixels[part]

        def read():
            raise AssertionError("the image is read whole")

        return Plane(read, pixels.shape, pixels.dtype, read_part)


@pytest.fixture
def reads():
    return Reads()


@pytest.fixture
def session(reads, pixels):
    session = Session()
    session.configure(backbone="filters")
    session.set_image(reads.plane(pixels), "large", name="large")
    session.compute_features()
    return session


def painted(at=0):
    labels = np.zeros(SHAPE, np.uint8)
    labels[at + 20 : at + 60, 20:60] = 1
    labels[at + 20 : at + 60, 120:160] = 2
    return labels


def train(session, labels, view=VIEW, until=Stage.SEGMENTATION):
    session.set_scribbles(labels)
    compute_and_accept(session, session.train_request(visible=view, until=until))


def compute_and_accept(session, request):
    session.accept(compute(request))


def fill(session, view=None):
    request = session.live.block_request(visible=view)
    if request is not None:
        compute(request, partial=session.accept)
    return request


def segment_all(session, target, **options):
    assert session.accept(compute(whole_request(session, target), **options))


def test_a_lazy_image_is_never_read_whole(session, reads):
    assert isinstance(session.features, BlockFeatures)
    assert session.cost().block == BLOCK
    assert "computed where you look and paint" in session.cost().brief()
    assert max(part[0].stop - part[0].start for part in reads) <= 1024


def test_a_small_lazy_image_has_features_as_ever(pixels):
    small, session = pixels[:200, :300], Session()
    session.configure(backbone="filters")
    session.set_image(Plane(lambda: small, small.shape, small.dtype))
    session.compute_features()
    assert not session.current.is_in_blocks


def test_features_that_do_not_fit_are_computed_in_blocks(monkeypatch, pixels):
    session = Session()
    session.configure(backbone="filters")
    session.set_image(pixels)
    assert not session.cost().block
    whole = session.cost().peak_bytes
    monkeypatch.setattr(
        "napari_hrdv2.core.devices.available_memory", lambda device: whole // 2
    )
    assert session.cost().block == BLOCK
    session.compute_features()
    assert session.current.is_in_blocks


def test_what_takes_the_whole_image_is_refused_as_ever(monkeypatch, pixels):
    session = Session()
    session.set_image(pixels)
    session.configure(backbone="spit-small")
    monkeypatch.setattr("napari_hrdv2.core.devices.available_memory", lambda device: 9)
    assert not session.cost().fits
    with pytest.raises(ValueError, match="of memory and .* By blocks: backbone: spit"):
        session.feature_request()


def test_a_stroke_reads_only_blocks_that_are_painted_on(session, reads):
    reads.clear()
    train(session, painted(at=500))
    down, across = session.features.axes
    assert reads == [(down.seen(2), across.seen(0))]
    reads.clear()
    labels = painted(at=500)
    labels[600:610, 30:50] = 1
    train(session, labels)
    assert not reads  # the block is kept


def test_what_is_in_view_is_segmented_first(session, truth):
    train(session, painted())
    found = session.segmentation
    assert np.mean(found[VIEW] == truth[VIEW]) > 0.99
    assert not found[300:].any()
    assert session.phase_fractions() == {}
    assert session.status.startswith("Segmented: what is in view.")


def test_looking_elsewhere_segments_the_blocks_there(session, reads, truth):
    train(session, painted())
    fill(session, VIEW)
    reads.clear()
    view = slice(600, 680), slice(560, 600)
    request = fill(session, view)
    assert len(request.windows) == 1
    down, across = session.features.axes
    assert reads == [(down.seen(2), across.seen(2))]
    assert np.mean(session.segmentation[view] == truth[view]) > 0.97
    assert session.live.block_request(visible=view) is None
    assert session.status.startswith(f"Segmented: 2 of {COUNT} blocks.")


def test_more_in_view_than_is_kept_is_not_computed(session, monkeypatch):
    monkeypatch.setattr(BlockFeatures, "most_kept", 2)
    monkeypatch.setattr(BlockFeatures, "is_kept", lambda self, region: False)
    train(session, painted(), view=None)
    assert session.live.block_request() is None
    assert "zoom in" in session.status


def test_all_blocks_are_what_the_whole_is(session, pixels, target):
    train(session, painted())
    told = []
    segment_all(session, target, progress=lambda *one: told.append(one))
    whole = Session()
    whole.configure(backbone="filters")
    whole.set_image(pixels)
    whole.compute_features()
    assert not whole.current.is_in_blocks
    expected = session.classifier.predict(whole.features)
    labels = np.asarray(session.segmentation)
    assert np.mean(labels == expected) >= 0.9999
    found = session.phase_fractions()
    counted = {i: np.mean(labels == i) for i in (1, 2)}
    assert found == pytest.approx(counted)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_all_of_it_stays_in_its_file(session, reads, target):
    train(session, painted())
    segment_all(session, target)
    labels = session.segmentation
    assert isinstance(labels, LazyImage)
    assert [level.shape for level in labels.levels] == [(350, 450), (175, 225)]
    assert session.measurement.measure().together.pixels == np.prod(SHAPE)
    assert session.current.result.counted.phases[0].error > 0
    train(session, painted(at=100))  # another classifier: where one looks, as ever
    assert isinstance(session.segmentation, np.ndarray)


def test_cancel_keeps_what_is_done(session, reads, target):
    train(session, painted())
    told = []

    def should_stop():
        return any(done >= 4 for _, done, _ in told)

    request = whole_request(session, target)
    with pytest.raises(Cancelled):
        compute(
            request, progress=lambda *one: told.append(one), should_stop=should_stop
        )
    assert session.phase_fractions() == {}
    assert not target.exists()
    session.features.drop()
    told.clear()
    segment_all(session, target, progress=lambda *one: told.append(one))
    assert told[0][1] == 4
    assert sum(session.phase_fractions().values()) == pytest.approx(1)


def test_all_of_it_is_refined(session, pixels, target):
    for row, column in np.argwhere(np.ones((4, 4))) * 170 + 65:
        pixels[row : row + 9, column : column + 9] += 60  # specks, of either class
    train(session, painted())
    session.refinement.change(min_object=200)
    segment_all(session, target)
    assert session.current.result.refinement.min_object == 200
    raw = session.classifier.predict(session.features)
    cleaned = clean(raw, 200, 0)
    assert (cleaned != raw).any()
    assert np.array_equal(session.segmentation, cleaned)


def test_all_of_it_is_smoothed(session, pixels, target):
    train(session, painted())
    session.refinement.change(smoothing="guided")
    segment_all(session, target)
    of = session.classifier
    expected = refine(
        of.predict_proba(session.features),
        pixels,
        of.classes,
        session.refinement.settings,
    )
    assert np.array_equal(session.segmentation, expected)


def test_a_scribble_meanwhile_is_not_undone_by_the_whole(session, target):
    train(session, painted())
    request = whole_request(session, target)
    train(session, painted(at=100))
    assert not session.accept(compute(request))


def test_what_is_there_is_not_replaced_by_accident(session, target):
    with pytest.raises(ValueError, match="no result yet"):
        whole_request(session, target)
    train(session, painted())
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError):
        whole_request(session, target)


def test_blocks_of_a_former_result_are_not_taken(session):
    train(session, painted())
    old = session.live.block_request(visible=VIEW)
    labels = painted()
    labels[100:110, 20:60] = 2
    train(session, labels)
    taken = []
    compute(old, partial=lambda part: taken.append(session.accept(part)))
    assert not any(taken)
    assert session.current.result.blocks.done == {}


def test_a_part_is_not_measured_as_the_whole(session, target):
    session.measurement.set_scope(Scope.CURRENT)
    train(session, painted(), until=Stage.MEASUREMENT)
    assert session.measurement.measured is None
    with pytest.raises(ValueError, match="no result to measure"):
        session.measurement.measure()
    segment_all(session, target)
    assert session.measurement.measure().together.pixels == np.prod(SHAPE)


def test_uncertain_regions_are_among_what_is_computed(session, pixels, reads):
    pixels[40:90, 200:240] = 148  # between the two classes, where it is kept
    pixels[500:550, 700:740] = 148  # and where it is not
    train(session, painted())
    session.features.drop()
    fill(session, VIEW)
    reads.clear()
    regions = session.guidance.find_uncertain_regions()
    assert not reads
    assert all(max(one.row, one.column) < BLOCK for one in regions)
    best = regions[0]
    assert 30 <= best.row < 100
    assert 190 <= best.column < 250
    assert "against" in best.reason


def test_without_a_block_in_memory_there_are_no_uncertain_regions(session):
    train(session, painted())
    session.features.drop()
    with pytest.raises(ValueError, match="look at a part of the image first"):
        session.guidance.find_uncertain_regions()


def test_the_refinement_told_is_that_of_the_file(session, target, reads, pixels):
    train(session, painted())
    session.refinement.change(min_object=200)
    segment_all(session, target)
    session.refinement.change(min_object=0, smoothing="guided")
    made = plan_export(session, target.parent / "new").content.provenance
    assert made.refinement == session.current.result.refinement
    assert made.refinement.min_object == 200
    session.set_image(reads.plane(pixels), "other", name="other")
    session.compute_features()
    compute_and_accept(session, session.train_request(visible=VIEW))
    segment_all(session, target.with_name("other.zarr"))
    with pytest.raises(ValueError, match="refined in different ways"):
        plan_export(session, target.parent, formats=["script"], all_images=True)


def test_what_is_excluded_or_missing_is_left_out(pixels, target):
    holes = pixels.astype(np.float32)
    holes[300:340, 600:700] = np.nan
    session = Session()
    session.configure(backbone="filters", value_range=(0, 255))
    session.set_image(Reads().plane(holes))
    session.compute_features()
    mask = np.zeros(SHAPE, bool)
    mask[500:] = True
    session.set_exclusion(mask)
    train(session, painted())
    segment_all(session, target)
    assert not session.segmentation[500:].any()
    assert not session.segmentation[300:340, 600:700].any()
    assert sum(session.phase_fractions().values()) == pytest.approx(1)


def test_an_undone_class_clears_the_result(session):
    train(session, painted())
    session.set_scribbles(np.minimum(painted(), 1))
    assert session.train_request(visible=VIEW) is None
    assert not session.segmentation.any()


def test_tokens_go_and_the_blocks_come_back(session):
    train(session, painted())
    session.current.evict()
    assert session.features.own_nbytes == 0
    assert session.current.is_in_blocks
    train(session, painted() * (np.arange(SHAPE[1]) > 30))
    assert session.current.is_shown


def test_arrays_in_files_are_lazy(tmp_path, pixels):
    np.save(tmp_path / "image.npy", pixels)
    mapped = np.load(tmp_path / "image.npy", mmap_mode="r")
    assert is_lazy(mapped)
    assert is_lazy(np.asarray(mapped[10:]))
    assert not is_lazy(pixels[10:])


def test_scribbles_take_memory_only_where_they_are(session):
    labels = painted()
    session.set_scribbles(labels)
    kept = session.scribbles
    labels[:] = 0  # the layer goes on being painted
    assert np.array_equal(kept.labels, painted())
    assert len(kept.sparse.pixels) == np.count_nonzero(painted())


KINDS = pytest.mark.parametrize("class_id", [None, 1, UNLIKE])


def show_map(session, class_id, view=VIEW):
    """Ask for a map, and fill it in view."""
    found = compute(session.guidance.uncertainty_request(class_id, visible=view))
    session.live.show_map(found)
    request = session.live.block_request(visible=view)
    if request is not None:
        compute(request, partial=found.put)
    return found


@KINDS
def test_a_map_of_blocks_is_that_of_the_whole(reads, pixels, class_id, monkeypatch):
    sampled = "napari_hrdv2.core.features.blocks.features.SAMPLED_BLOCKS"
    monkeypatch.setattr(sampled, COUNT)
    session, whole = Session(), Session()
    for one, image in (session, reads.plane(pixels)), (whole, pixels):
        one.configure(backbone="filters")
        one.set_image(image)
        one.compute_features()
        train(one, painted())
    assert not whole.current.is_in_blocks
    found = show_map(session, class_id, None)
    assert not found.extent()
    wanted = compute(whole.guidance.uncertainty_request(class_id)).values
    apart = np.abs(found.values.astype(int) - np.maximum(wanted, 1))
    assert np.mean(apart > 1) <= 1e-4


def test_a_map_has_what_one_looks_at_and_says_so(session, reads):
    train(session, painted())
    found = show_map(session, None)
    assert found.values[VIEW].all()
    assert not found.values[300:].any()
    assert "The map is there in 1 of 12 blocks." in session.next_step()
    reads.clear()
    view = slice(600, 680), slice(560, 600)
    compute(session.live.block_request(visible=view), partial=found.put)
    assert len(reads) == 1
    assert found.values[view].all()
    assert found.extent() == " in 2 of 12 blocks"


def test_a_map_of_a_former_result_is_filled_no_more(session):
    train(session, painted())
    found = compute(session.guidance.uncertainty_request())
    session.live.show_map(found)
    train(session, painted(at=100))
    assert all(
        one.values is not found.values for one in session.live.block_request().wanted
    )


def test_a_map_of_blocks_leaves_out_what_is_excluded(session):
    mask = np.zeros(SHAPE, bool)
    mask[:10] = True
    session.set_exclusion(mask)
    train(session, painted())
    found = show_map(session, 1)
    assert not found.values[:10, :120].any()  # as where no block is: transparent
    assert found.values[10:120, :120].all()
    assert found.values[10:120, :120].max() > 200


def test_a_loaded_classifier_knows_what_was_painted(session, pixels, reads, tmp_path):
    train(session, painted())
    expected = show_map(session, UNLIKE).values[VIEW]
    session.save_classifier(tmp_path / "one.safetensors")
    other = Session()
    other.load_classifier(tmp_path / "one.safetensors")
    other.set_image(reads.plane(pixels), "large", name="large")
    other.compute_features()
    compute_and_accept(other, other.train_request(visible=VIEW))
    assert np.array_equal(show_map(other, UNLIKE).values[VIEW], expected)


def test_a_file_that_does_not_know_what_was_painted_is_refused(session, tmp_path):
    train(session, painted())
    session.classifier.save(tmp_path / "old.safetensors")
    other = Session()
    other.load_classifier(tmp_path / "old.safetensors")
    other.set_image(session.image, "large")
    other.compute_features()
    compute_and_accept(other, other.train_request(visible=VIEW))
    with pytest.raises(ValueError, match="does not keep what was painted: save it"):
        other.guidance.uncertainty_request(UNLIKE)
    assert other.guidance.uncertainty_request()


def test_places_are_from_the_blocks_of_the_background_sample(session, truth, reads):
    reads.clear()
    session.set_scribbles(painted())
    found = session.guidance.propose_places(6)
    assert not reads
    features = session.features
    pixels = np.divmod(features.background_pixels(), SHAPE[1])
    sampled = {features.block_at(*at) for at in zip(*pixels, strict=True)}
    assert len(sampled) == 2
    assert {features.block_at(one.row, one.column) for one in found.places} <= sampled
    assert found.text == "Looked for in 2 of 12 blocks."
    assert {truth[one.row, one.column] for one in found.places} == {1, 2}
    assert not any(painted().ravel()[one.pixels].any() for one in found.places)


def test_a_place_of_a_large_image_can_be_named(session):
    place, *_ = session.guidance.propose_places(2).places
    pixels = session.guidance.name_place(session.current.key, place, 3)
    assert len(pixels)
    assert session.scribbles.counts == {3: len(pixels)}


def test_what_was_begun_of_a_closed_image_is_not_replaced(session, target, pixels):
    train(session, painted())
    assert not is_taken(session, target)
    stopped = iter([False] * 3)
    with pytest.raises(Cancelled):
        compute(whole_request(session, target), should_stop=lambda: next(stopped, True))
    assert not is_taken(session, target)  # it goes on with its own
    session.set_image(Reads().plane(pixels[::-1].copy()), "other", name="large")
    session.compute_features()
    compute_and_accept(session, session.train_request(visible=VIEW))
    assert is_taken(session, target)


def test_maps_of_the_whole_are_refused_in_blocks(session):
    train(session, painted())
    guidance = session.guidance
    for ask in guidance.uncertainty, guidance.unlike_painted:
        with pytest.raises(ValueError, match="too large to be looked at as a whole"):
            ask()
    with pytest.raises(ValueError, match="map: .*; open a part"):
        guidance.probability(1)
