"""Training learns, goes on where it stopped, and writes what the package loads."""

import csv
import itertools
from collections import defaultdict

import numpy as np
import pytest
import torch
from safetensors import safe_open
from sklearn.linear_model import Ridge

from napari_hrdv2 import compute_features, load_backbone
from napari_hrdv2.core.backbones.embedded.network import BUNDLED, load_weights
from napari_hrdv2.core.features.levels import image_levels


def test_the_head_is_balanced_ridge_regression_on_standardised_features() -> None:
    from head import RidgeHead

    rng = np.random.default_rng(0)
    support = rng.standard_normal((40, 5)) * [1, 10, 0.1, 3, 1] + 2
    classes = np.repeat([0, 1, 2], [25, 10, 5])
    query = rng.standard_normal((7, 5)) + 2
    head = RidgeHead(8).requires_grad_(False)
    head.log_trust[:] = torch.linspace(-1, 1, 8)
    weight = 1 / (3 * np.bincount(classes))[classes]
    mean = weight @ support
    deviation = np.sqrt(query.var(0) + 1e-4)  # of pixels from all over the picture
    factor = np.exp(np.linspace(-1, 1, 8)[:5]) / deviation
    ridge = Ridge(alpha=float(head.log_penalty.exp()), fit_intercept=False)
    ridge.fit((support - mean) * factor, np.eye(3)[classes] - 1 / 3, weight)
    expected = float(head.log_scale.exp()) * ridge.predict((query - mean) * factor)
    found = head(
        torch.from_numpy(support).float(),
        torch.from_numpy(classes),
        torch.from_numpy(query).float(),
    )
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_rare_classes_weigh_more_in_the_loss() -> None:
    from head import balanced_loss

    truth = torch.tensor([0] * 99 + [1])
    logits = torch.zeros(3, 100, 2)
    logits[:, torch.arange(100), truth] = 3.0
    logits[1, -1] *= -1  # wrong about the rare pixel
    logits[2, 0] *= -1  # wrong about one of the others
    right, rare, common = (float(balanced_loss(one, truth)) for one in logits)
    assert rare - right > 5 * (common - right) > 0


def test_a_batch_is_the_same_every_time(monkeypatch) -> None:
    import tasks

    monkeypatch.setattr(tasks, "SIZES", ((64, 2, 1.0),))
    one, again = (tasks.make_batch(5, 3, 2) for _ in range(2))
    assert one.images.shape == (2, 3, 64, 64)
    assert len(one.visits) == 2
    assert torch.equal(one.images, again.images)
    for visit, same in zip(one.visits, again.visits, strict=True):
        for pair, twin in zip(visit, same, strict=True):
            for pixels, copy in zip(pair, twin, strict=True):
                assert torch.equal(pixels.places, copy.places)
                assert torch.equal(pixels.bank, copy.bank)
    support, query = one.visits[0][0]
    assert set(support.classes.tolist()) == set(range(int(support.classes.max()) + 1))
    assert len(query.classes) == tasks.QUERY


def test_an_episode_has_strokes_on_some_pictures_and_pixels_of_all(monkeypatch) -> None:
    import tasks

    monkeypatch.setattr(tasks, "SIZES", ((64, 5, 1.0),))
    for number in range(6):
        batch = tasks.make_batch(5, number, 2, series=1.0)
        assert batch.images.shape == (5, 3, 64, 64)
        for visit in batch.visits:
            asked = [query.pictures.unique().tolist() for _, query in visit]
            assert list(itertools.chain(*asked)) == list(range(5))
            assert all(len(pictures) > 1 for pictures in asked)
            for (support, query), pictures in zip(visit, asked, strict=True):
                assert support.pictures.unique().tolist() in (
                    pictures[:1],
                    pictures[:2],
                )
                assert set(query.classes.tolist()) <= set(support.classes.tolist())


def test_unlabelled_pixels_are_in_no_task(monkeypatch) -> None:
    import tasks

    monkeypatch.setattr(tasks, "SIZES", ((64, 3, 1.0),))
    monkeypatch.setattr(tasks, "FRAMED", 1.0)
    for number in range(6):
        for visit in tasks.make_batch(5, number, 1, series=0.5).visits:
            for support, query in visit:
                assert support.classes.min() == 0
                assert query.classes.min() >= 0


def test_levels_of_an_episode_are_as_a_normalisation_of_the_product_has_them() -> None:
    import tasks
    from micrographs import random_series

    series = random_series(1, 3, 64, color=False)
    drawn = [tasks._levels(np.random.default_rng(i), series, 2) for i in range(30)]
    kinds = {tuple(levels) for levels in drawn}
    assert len(kinds) == 3
    assert (None, None, None) in kinds
    shared = image_levels([each.image for each in series[:2]])
    assert (shared, shared, shared) in kinds


def test_features_of_an_episode_are_those_of_each_picture() -> None:
    import tasks
    import train

    grids = [torch.rand(3, channels, 6, 8) for channels in (2, 4)]
    pictures, places = torch.tensor([0, 2, 2]), torch.tensor([[1, 5], [3, 7], [10, 0]])
    pixels = tasks.Pixels(pictures, places, pictures, torch.zeros(3, 1))
    shape = torch.Size((12, 16))
    found = train._features(grids, pixels, [], shape, with_bank=False)
    for row, (picture, place) in enumerate(zip(pictures, places, strict=True)):
        parts = [tasks.read(grid[picture], place[None], shape)[0] for grid in grids]
        torch.testing.assert_close(found[row], torch.cat(parts))
    turned = [grid.flip(3) for grid in grids]
    again = train._features(turned, pixels, [3], shape, with_bank=False)
    torch.testing.assert_close(again, found)


def test_features_are_read_at_the_places_that_they_are_features_of() -> None:
    from tasks import read

    rows, columns = np.mgrid[:12, :20]
    grid = torch.from_numpy(np.stack([rows, columns])).float()  # of 24 × 40 pixels
    places = torch.tensor([[1, 1], [8, 30], [22, 38]])
    expected = (places - 0.5) / 2  # a patch of two pixels has its centre between them
    torch.testing.assert_close(read(grid, places, (24, 40)), expected)


def test_training_goes_on_where_it_stopped(tmp_path, monkeypatch) -> None:
    import tasks
    from train import TrainingRun

    monkeypatch.setattr(tasks, "SIZES", ((64, 2, 1.0),))
    monkeypatch.setattr("train.REPORT_EVERY", 1)
    monkeypatch.setattr("train.MEMORY", 1)
    threads = torch.get_num_threads()
    first = TrainingRun(tmp_path, steps=2, seed=1)
    before = first.network.head.weight.detach().clone()
    first.run(processes=1)
    torch.set_num_threads(threads)
    assert not torch.equal(first.network.head.weight, before)
    second = TrainingRun(tmp_path, steps=3, seed=1)
    assert second.step == 2
    assert torch.equal(second.network.head.weight, first.network.head.weight)
    second.run(processes=1)
    with (tmp_path / "log.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3"]
    backbone = load_backbone("embedded", tmp_path / "embedded.safetensors", "cpu")
    image = np.random.default_rng(0).random((40, 50))
    features = compute_features(image, backbone)
    assert np.isfinite(features.materialize()).all()


def test_a_run_can_begin_with_the_weights_of_another(tmp_path, monkeypatch) -> None:
    import tasks
    from train import TrainingRun

    monkeypatch.setattr(tasks, "SIZES", ((64, 2, 1.0),))
    shipped = load_weights()
    training = TrainingRun(
        tmp_path, steps=1, seed=1, rate=1e-4, start=BUNDLED, series=0.5
    )
    images = torch.rand(1, 3, 32, 48)
    torch.testing.assert_close(training.network(images), shipped.network(images))
    channel_weights = training.head.log_trust.detach().exp()
    torch.testing.assert_close(channel_weights, shipped.channel_weights)
    assert training._rate() == 1  # so short a run has no warm-up
    threads = torch.get_num_threads()
    training.run(processes=1)
    torch.set_num_threads(threads)
    new = load_weights(tmp_path / "embedded.safetensors")
    assert new.hash != shipped.hash
    torch.testing.assert_close(
        new.network(images), shipped.network(images), atol=0.2, rtol=0.1
    )
    with safe_open(tmp_path / "embedded.safetensors", "pt") as file:
        assert file.metadata()["trained"].endswith(
            f", 0.5 of series, from {shipped.hash}"
        )


def test_a_picture_is_not_seen_again_at_once(tmp_path, monkeypatch) -> None:
    import train

    def endless(seed, start, visits, *, processes, series):
        yield from itertools.count(start)

    seen = []

    def learn(training, batch, visit, chance):
        seen.append((batch, visit))
        training.step += 1
        return 0.0

    monkeypatch.setattr(train, "stream", endless)
    monkeypatch.setattr(train, "MEMORY", 20)
    monkeypatch.setattr(train.TrainingRun, "_learn", learn)
    train.TrainingRun(tmp_path, steps=400, seed=0).run(processes=1)
    places = defaultdict(list)
    for step, (batch, visit) in enumerate(seen):
        assert visit == len(places[batch])
        places[batch].append(step)
    apart = [there[1] - there[0] for there in places.values() if len(there) == 2]
    assert len(apart) > 150
    assert np.median(apart) > 10


@pytest.mark.parametrize("strokes", [1, 4])
def test_validation_prints_a_table(strokes, monkeypatch, capsys) -> None:
    import validate

    monkeypatch.setattr(validate, "STROKES", (strokes,))
    arguments = ["validate.py", "--pictures", "1", "--size", "64"]
    monkeypatch.setattr("sys.argv", arguments)
    validate.main()
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.startswith(f"| {strokes} a class | ")
    assert all(0 < float(value) <= 1 for value in row.split("|")[2:5])
