"""A linear pixel classifier that is trained on a few labelled pixels."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from napari_hrdv2.core.checks import check_whole, checked_mask
from napari_hrdv2.core.features.normalisation import Normalisation
from napari_hrdv2.core.features.options import PartOptions, alike
from napari_hrdv2.core.features.tiles import LinearModel, Region

from .adaptation import TrainedOn
from .background import BackgroundSample, read_background, whitening
from .compatibility import check_alike, check_channels, check_part_options
from .fitting import SelfTrainingRounds, fit_with_self_training
from .joining import trusted
from .samples import (
    MOST_PER_CLASS,
    LabelledImage,
    TrainingSamples,
    fingerprint,
    labelled_images,
)

if TYPE_CHECKING:
    from napari_hrdv2.core.errors import Stop
    from napari_hrdv2.core.features.base import Features

    from .file import PaintedPoints

OPTIONS = ("C", "balanced", "tolerance", "self_training", "most_per_class", "by_place")
ABOUT = (
    *("part_options", "normalisation", "class_names", "class_colors"),
    *("pixel_size", "labels_hash"),
)


class PixelClassifier:
    """Logistic regression from feature vectors to classes.

    Parameters
    ----------
    C : float
        Weight of the labelled pixels against the penalty on large coefficients, which
        act on coordinates of the features, see `PCACoordinates`. Far below 1
        because the pixels of a scribble are alike: a thousand of them tell as much as a
        few dozen independent ones.
    balanced : bool
        Whether all classes count alike however many pixels each was given.
    tolerance : float
        Where the fit stops; smaller is slower.
    self_training : bool
        Whether pixels that are not labelled train too, where the classifier is sure of
        them, see `fit_with_self_training`.
    most_per_class : int or None
        How many pixels of a class train at most, of each image; None for all. Of a
        class with more than 500, one trains of those in a block of 2 × 2 px, which look
        alike, and counts as much as all of them; of more blocks than this it takes some
        from all over, the same ones for the same labels.
    by_place : bool
        Whether each place of 16 × 16 px that a class was painted in counts alike, and
        the number of places says how far to trust fine distinctions, see `whitening`;
        of joined features, the scribbles say how far to trust coarse ones, see
        `trusted`. Without, pixels count, as in 0.1.0; so they do in what was saved by
        it.

    Attributes
    ----------
    classes : (K,) int64 array
        The label ids, ascending.
    weight, bias : (K, C) and (K,) float32 arrays
        Of features as they are.
    part_options : tuple of PartOptions
        How the features were made that it was trained on.
    normalisation : Normalisation
        Whose grey levels other images are to be brought to; see `train_series`.
    trained_on : TrainedOn or None
        What `adapted_to` needs; `train_series` has it kept.
    painted : PaintedPoints or None
        What `unlikeness_to` needs, in files that were saved in the window.
    class_names, class_colors : dict
        Optional, by label id; colours as "#rrggbb".
    pixel_size : tuple of float and str, or None
        Size and unit of a pixel of the training image.
    labels_hash : str
        SHA-256 of the labels that it was given, those that others stood for included.

    Examples
    --------
    >>> from napari_hrdv2 import HighResFeatures
    >>> tokens = np.arange(12.0, dtype=np.float32).reshape(1, 3, 4, 1)
    >>> features = HighResFeatures(tokens, "identity", (3, 4), 1, 1)
    >>> labels = np.array([[5, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 9]])
    >>> PixelClassifier().fit(features, labels).predict(features).tolist()
    [[5, 5, 5, 5], [5, 5, 9, 9], [9, 9, 9, 9]]
    """

    def __init__(
        self,
        *,
        C: float = 0.03,
        balanced: bool = True,
        tolerance: float = 1e-5,
        self_training: bool = True,
        most_per_class: int | None = MOST_PER_CLASS,
        by_place: bool = True,
    ) -> None:
        if not 0 < C < np.inf:
            raise ValueError(f"C: {C} is not a weight; a number above 0 is needed")
        self.C, self.balanced, self.tolerance = float(C), balanced, tolerance
        self.self_training, self.by_place = self_training, by_place
        if most_per_class is not None:
            check_whole("most_per_class", most_per_class, 1, " of pixels")
            most_per_class = int(most_per_class)
        self.most_per_class = most_per_class
        self.classes = np.empty(0, np.int64)
        self.weight = np.empty((0, 0), np.float32)
        self.bias = np.empty(0, np.float32)
        self.part_options: tuple[PartOptions, ...] = ()
        self.normalisation = Normalisation()
        self.trained_on: TrainedOn | None = None
        self.painted: PaintedPoints | None = None
        self.class_names: dict[int, str] = {}
        self.class_colors: dict[int, str] = {}
        self.pixel_size: tuple[float | tuple[float, float], str] | None = None
        self.labels_hash = ""
        self._background: BackgroundSample | None = None
        self._rounds = SelfTrainingRounds()

    def __repr__(self) -> str:
        made = ", ".join(part.backbone for part in self.part_options)
        return f"PixelClassifier(classes={self.classes.tolist()}, features={made!r})"

    @property
    def is_fitted(self) -> bool:
        """Whether it can predict."""
        return len(self.classes) > 0

    def fit(
        self,
        features: Features | Sequence[Features],
        labels: ArrayLike | Sequence[ArrayLike],
        *,
        exclusion: ArrayLike | Sequence[ArrayLike | None] | None = None,
        should_stop: Stop = None,
        excluded: ArrayLike | Sequence[ArrayLike | None] | None = None,
    ) -> Self:
        """Train on the labelled pixels; start from the last fit if there is one.

        On some of them that stand for all, see `most_per_class`. A background sample
        tells what else there is in the images. If it raises, all is as it was before.

        Parameters
        ----------
        features : Features, or a sequence of them
        labels : (H, W) array of int, or a sequence of them
            0 where a pixel is not labelled, else any positive label id.
        exclusion : (H, W) bool array, or a sequence of them or None, optional
            Where an image shows no material: the background sample has none of it.
        should_stop : callable, optional
            Asked before each image is read and between steps of the fit.
        excluded : optional
            The former name of `exclusion`, which scripts of 0.1.0 use. They promise
            the result of then, so pixels count, see `by_place`.

        Raises
        ------
        Cancelled
            If `should_stop` said so.
        TypeError, ValueError
            If the labels do not fit the features, or fewer than two classes are
            labelled.
        """
        by_place = self.by_place and excluded is None
        exclusion = excluded if exclusion is None else exclusion
        images = labelled_images(features, labels, exclusion)
        first = images[0].features
        check_alike([image.features for image in images])
        training, background = self._read(
            images, by_place=by_place, former=self._background, should_stop=should_stop
        )
        view = background.including(training.rows, training.index)
        rounds = fit_with_self_training(
            training.transformed(view.coordinates),
            training.index,
            coordinates=view.coordinates,
            regularisation=self.C,
            whitening=whitening(training.places),
            sample_weight=training.weight,
            tolerance=self.tolerance,
            unlabelled=view.unlabelled if self.self_training else None,
            start=self.warm_start(training.classes, training.rows.shape[1]),
            should_stop=should_stop,
        )
        self._background, self._rounds, self.by_place = background, rounds, by_place
        self.classes = training.classes
        self.weight, self.bias = rounds.result.numpy()
        self.part_options = first.part_options
        self.normalisation, self.trained_on, self.painted = Normalisation(), None, None
        self.labels_hash = fingerprint(image.labels for image in images)
        return self

    def _read(
        self,
        images: Sequence[LabelledImage],
        *,
        by_place: bool,
        former: BackgroundSample | None = None,
        should_stop: Stop = None,
    ) -> tuple[TrainingSamples, BackgroundSample]:
        """Return the training samples of some images, and their background sample."""
        training = TrainingSamples.read(
            images,
            self.most_per_class,
            balanced=self.balanced,
            by_place=by_place,
            should_stop=should_stop,
        )
        weigh = partial(trusted, training) if by_place else None
        background = BackgroundSample.of(
            images, training.rows, weigh=weigh, former=former, should_stop=should_stop
        )
        return training, background

    def keep_training(
        self,
        features: Sequence[Features],
        labels: Sequence[ArrayLike],
        exclusion: Sequence[ArrayLike | None] | None = None,
    ) -> None:
        """Keep what `adapted_to` needs of the images that it was trained on."""
        images = labelled_images(features, labels, exclusion)
        self.trained_on = TrainedOn.of(*self._read(images, by_place=self.by_place))

    def untrained(self) -> Self:
        """Return a new classifier with the same options."""
        return type(self)(**{name: getattr(self, name) for name in OPTIONS})

    def light_copy(self, *, background_of: PixelClassifier | None = None) -> Self:
        """Return one that predicts the same, without what only speeds up a fit.

        It may share the background sample of another one.
        """
        copied = copy.copy(self)
        copied._rounds = SelfTrainingRounds()
        copied._background = background_of._background if background_of else None
        return copied

    def adapted_to(
        self,
        features: Features,
        *,
        exclusion: ArrayLike | None = None,
        should_stop: Stop = None,
    ) -> PixelClassifier:
        """Return one that was trained with an image's unlabelled pixels too.

        It is for that image alone, and itself where nothing was kept to train on.
        """
        if self.trained_on is None:
            return self
        self.check_can_read(features)
        adapted, mask = self.light_copy(), checked_mask(exclusion, features.shape[1:])
        _, new = read_background(features, mask, should_stop=should_stop)
        start = adapted.warm_start(self.classes, features.shape[0])
        aligned, alignment = self.trained_on.aligned(new, start.result)
        rows, coordinates, free = self.trained_on.with_new(aligned)
        rounds = fit_with_self_training(
            coordinates(rows),
            self.trained_on.index,
            coordinates=coordinates,
            regularisation=self.C,
            whitening=float(self.trained_on.whitening[0]),
            sample_weight=self.trained_on.weight,
            tolerance=self.tolerance,
            unlabelled=coordinates(free) if self.self_training else None,
            start=start,
            should_stop=should_stop,
        )
        adapted.weight, adapted.bias = alignment.model_of(rounds.result).numpy()
        return adapted

    def predict(
        self,
        features: Features,
        *,
        region: Region | None = None,
        should_stop: Stop = None,
    ) -> NDArray[Any]:
        """Return the label id of every pixel, (H, W), in the smallest unsigned type.

        Parameters
        ----------
        features : Features
        region : tuple of two slices, optional
            Rows and columns to segment, as in ``image[region]``; all by default.
            Equals that part of the whole, bit for bit, and takes its part of the time.
        should_stop : callable, optional
            Asked between blocks of work; `Cancelled` is raised if it says so.
        """
        self.check_can_read(features)
        ids = self.classes.tolist()
        labels = features.argmax(
            self.weight, self.bias, ids, region=region, should_stop=should_stop
        )
        return labels.astype(np.min_scalar_type(max(ids)), copy=False)

    def predict_proba(
        self,
        features: Features,
        *,
        region: Region | None = None,
        should_stop: Stop = None,
    ) -> NDArray[np.float32]:
        """Return the probability of every class at every pixel, (K, H, W) float32.

        In the order of `classes`; sums to 1 over the first axis. Parameters are those
        of `predict`.
        """
        self.check_can_read(features)
        return features.project(
            self.weight, self.bias, region=region, should_stop=should_stop, softmax=True
        )

    def check_can_read(self, features: Features) -> None:
        """Raise ValueError unless it was trained, on features like these."""
        if not self.is_fitted:
            raise ValueError(
                "classifier: it was not trained; call fit, or load a saved one"
            )
        check_part_options(self.part_options, features.part_options)
        check_channels(self.part_options, self.weight.shape[1], features)

    def mismatch(self, features: Features) -> str:
        """Return why it cannot be used on features as it was trained, or ""."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # told below
                self.check_can_read(features)
        except ValueError as error:
            return f"{error}."
        trained, given = self.part_options, features.part_options
        if trained and given and alike(trained) != alike(given):
            return "The features were made in another way than the loaded classifier's."
        return ""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the classifier to one safetensors file, whole or not at all."""
        from .file import Arrays, Header, write_classifier

        if not self.is_fitted:
            raise ValueError("classifier: it was not trained; call fit before save")
        header = Header(**{name: getattr(self, name) for name in (*OPTIONS, *ABOUT)})
        arrays = Arrays(self.weight, self.bias, self.classes)
        write_classifier(path, header, arrays, self.trained_on, self.painted)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Return the classifier of a file that :meth:`save` wrote."""
        from .file import read_classifier

        header, (weight, bias, classes), trained_on, painted = read_classifier(path)
        classifier = cls(**{name: getattr(header, name) for name in OPTIONS})
        classifier.weight, classifier.bias, classifier.classes = weight, bias, classes
        for name in ABOUT:
            setattr(classifier, name, getattr(header, name))
        classifier.trained_on, classifier.painted = trained_on, painted
        return classifier

    def warm_start(
        self, classes: NDArray[np.integer[Any]], channels: int
    ) -> SelfTrainingRounds:
        """Return where a fit begins: at the last one, and at zero for new classes."""
        if self.weight.shape[1:] != (channels,):
            return SelfTrainingRounds()
        is_known = np.isin(classes, self.classes)
        known = torch.from_numpy(np.flatnonzero(is_known))
        former = torch.from_numpy(np.searchsorted(self.classes, classes[is_known]))

        def moved(model: LinearModel) -> LinearModel:
            weight = torch.zeros(len(classes), model.weight.shape[1])
            bias = model.bias.mean().repeat(len(classes))
            weight[known], bias[known] = model.weight[former], model.bias[former]
            return LinearModel(weight, bias)

        # What a file or a light copy knows is the result alone.
        result = torch.tensor(self.weight), torch.tensor(self.bias)
        models = self._rounds.models or (LinearModel(*result),)
        return replace(self._rounds, models=tuple(moved(each) for each in models))
