"""The paragraph of a paper's methods section that says what was done in a window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from napari_hrdv2.core.backbones import backbone_info
from napari_hrdv2.core.classifier.background import pixels_per_image
from napari_hrdv2.core.classifier.fitting import ROUNDS
from napari_hrdv2.core.classifier.samples import MOST_PER_CLASS, PLACE, SUBSAMPLED_ABOVE
from napari_hrdv2.core.features.normalisation import Normalisation
from napari_hrdv2.core.features.options import OWN_TRANSFORMS
from napari_hrdv2.core.features.transforms import parse_transforms
from napari_hrdv2.core.measure import Fractions
from napari_hrdv2.core.postprocess.refinement import Refinement
from napari_hrdv2.files.units import sides_of

from .content import ExportImage, Provenance

_HRDV2 = (
    "R. Docherty, A. Vamvakeros, S. J. Cooper, Upsampling DINOv2 features for "
    "unsupervised vision tasks and weakly supervised materials segmentation, "
    "arXiv:2410.19836 (2024)."
)
_SMOOTHINGS = {
    "guided": "a guided filter",
    "crf": "a conditional random field with a colour term",
}


def methods_paragraph(
    made: Provenance, images: Sequence[ExportImage], fractions: Mapping[str, Fractions]
) -> str:
    """Return what was done in one paragraph, and below it the references.

    `fractions` are by the stems of the images; each number is of this segmentation.
    """
    cited: dict[str, int] = {}  # the number of each reference
    sentences = [
        _opening(made, images),
        *_features(made, images, cited),
        *_classifier(made, images),
        *_levels(made),
        *_excluded(images),
        *_refinement(made.refinement),
        *_fractions(made, images, fractions),
        _software(made),
    ]
    references = "".join(f"[{number}] {text}\n" for text, number in cited.items())
    return f"{' '.join(sentences)}\n\n{references}"


def _cite(cited: dict[str, int], *references: str) -> str:
    """Return the numbers of references, as " [1, 2]"; nothing for none."""
    numbers = sorted(cited.setdefault(one, len(cited) + 1) for one in references)
    return f" [{', '.join(map(str, numbers))}]" if numbers else ""


def _opening(made: Provenance, images: Sequence[ExportImage]) -> str:
    version = made.versions.get("napari-hrdv2", "")
    many = len(images) > 1
    return (
        f"The micrograph{'s' * many} {_listed(map(_described, images))} "
        f"{'were' if many else 'was'} segmented with "
        f"napari-hrdv2{f' {version}' * bool(version)}."
    )


def _described(image: ExportImage) -> str:
    height, width = image.shape
    size = f"{width} × {height} pixels"
    if image.pixel_size is not None:
        y, x = sides_of(image.pixel_size[0])
        told = f"{x:g}" if x == y else f"{x:g} × {y:g}"
        size += f", pixel size {told} {image.pixel_size[1]}"
    return f"{image.name} ({size})"


def _features(
    made: Provenance, images: Sequence[ExportImage], cited: dict[str, int]
) -> Iterable[str]:
    options = made.options
    parts = options.backbone.split("+")
    specs = [backbone_info(part) for part in parts]
    hashes = made.weights_hashes or ("",) * len(parts)
    backbones = _listed(
        f"{part}{f' (weights {fingerprint})' * bool(fingerprint)}"
        f"{_cite(cited, *spec.references)}"
        for part, spec, fingerprint in zip(parts, specs, hashes, strict=False)
    )
    many = len(parts) > 1
    method = _cite(cited, _HRDV2)
    yield (
        "Each pixel was described by features of the frozen "
        f"backbone{'s' * many} {backbones}, following HR-Dv2{method}."
    )
    ratios = [(one.name, one.pixel_ratio) for one in images if one.pixel_ratio]
    if ratios:
        listed = _listed(f"{name} ({y:g} × {x:g} times)" for name, (y, x) in ratios)
        were = "was" if len(ratios) == 1 else "were"
        yield (
            f"For this, {listed} {were} resized, and the result brought back, so that "
            "structures had the size at which they had been learnt."
        )
    patches = [spec.patch_size for spec in specs]
    if max(patches) > 1:
        apart = "one patch" if options.stride is None else f"{options.stride} pixels"
        upsampled = f"upsampled to pixels ({options.upsampling} interpolation)"
        end = (
            f" and {upsampled}"
            if options.transforms == "identity"
            else f", {upsampled} and averaged"
        )
        copies = _copies(options.transforms, options.stride or max(patches))
        yield f"Tokens {apart} apart were computed {copies}{end}."
    if options.debias != "none":
        yield (
            "What the features of noise images tell of position was taken out of them "
            f"(debias {options.debias})."
        )
    if options.channels:
        names = _listed(options.channel_names)
        yield f"Features of the channels {names}, each by itself, were joined."
        return
    ranges: set[Any] = {image.value_range for image in images if image.value_range}
    if ranges:
        told = _listed(f"{low:g}–{high:g}" for low, high in sorted(ranges))
        yield f"Grey levels of {told} were scaled to 0–1."


def _copies(transforms: str, stride: int) -> str:
    if transforms == "identity":
        return "on the image as it is"
    if transforms in OWN_TRANSFORMS:  # joined parts, each with a set of its own
        return "on transformed copies of the image"
    count = len(parse_transforms(transforms, stride))
    return f"on {count} transformed copies of the image ({transforms})"


def _classifier(made: Provenance, images: Sequence[ExportImage]) -> Iterable[str]:
    if made.classifier_file is not None:
        names = _listed(info.name for info in made.classes.values())
        yield (
            f"A classifier that had been trained before ({made.classifier_file}) "
            f"assigned each pixel to one of the classes {names}."
        )
        return
    painted = [image for image in images if image.trains]
    counts: Counter[int] = Counter()
    for image in painted:
        counts.update(image.scribble_pixels)
    listed = _listed(
        f"{_name(made, i)} ({_plural(counts[i], 'pixel')})" for i in sorted(counts)
    )
    pixels = sum(image.shape[0] * image.shape[1] for image in painted)
    where = f" on {', '.join(image.name for image in painted)}"
    yield (
        f"Scribbles were painted by hand{where * (len(images) > 1)} for the "
        f"classes {listed}, {_percent(counts.total() / pixels)} of the pixels in "
        "all."
    )
    if any(max(image.scribble_pixels.values()) > SUBSAMPLED_ABOVE for image in painted):
        yield (
            f"Of a class with more than {SUBSAMPLED_ABOVE} painted pixels in an image, "
            "one was used of those in each block of 2 × 2 pixels, and at most "
            f"{MOST_PER_CLASS}, weighted to stand for all of them."
        )
    weights = "all classes weighted alike" if made.balanced else "unweighted"
    if made.by_place:
        weights += (
            f", as were all painted places of {PLACE} × {PLACE} pixels of a class"
        )
    yield (
        "A multinomial logistic regression with L2 penalty on standardised, slightly "
        f"whitened features (C = {made.C:g}, {weights}) was fitted to these "
        f"pixels{_and_others(len(painted)) * made.self_training} and assigned every "
        "pixel to a class."
    )


def _and_others(painted: int) -> str:
    return (
        f" and then, {ROUNDS} times, to these and to those of a background sample of "
        f"{pixels_per_image(painted)} pixels{' of each image' * (painted > 1)} that "
        "were not labelled and that it was sure of (self-training)"
    )


_LEVELS = {
    "image": "each image's own mean and standard deviation of grey level",
    "shared": "the mean and standard deviation of grey level of the labelled images",
    "matched": "the gain and offset under which an image's grey levels are most likely "
    "as a mixture of those that the classes have in the labelled images, with light "
    "and dark exchanged where that is more probable",
}


def _levels(made: Provenance) -> Iterable[str]:
    if made.is_standardised:
        yield (
            "Grey levels of each of these micrographs were standardised by their own "
            "mean and standard deviation."
        )
        if made.series is not None and made.series.known:
            yield (
                "The same scribbles trained one for other micrographs of the series. "
                + normalisation_sentence(made.series)
            )


def normalisation_sentence(made: Normalisation) -> str:
    """Return whose grey levels were taken, and why."""
    why = f", {made.reason}" * bool(made.reason)
    adapted = ", and it is adapted to each new image, whose features are aligned"
    return (
        f"The classifier sees grey levels standardised by {_LEVELS[made.kind]} "
        f"(normalisation {made.kind}{why}){adapted * (made.kind != 'image')}."
    )


def _excluded(images: Sequence[ExportImage]) -> Iterable[str]:
    listed = [
        f"{_percent(image.exclusion.mean())} of {image.name}"
        for image in images
        if image.exclusion is not None and image.exclusion.any()
    ]
    if listed:
        yield (
            f"Regions that show no material ({_listed(listed)}) were excluded "
            "from training, segmentation and measurement."
        )


def _refinement(refinement: Refinement | None) -> Iterable[str]:
    if refinement is None:
        return
    if refinement.smoothing != "none":
        yield (
            "The class probabilities were smoothed along the edges of the image by "
            f"{_SMOOTHINGS.get(refinement.smoothing, refinement.smoothing)} (radius "
            f"{_plural(refinement.radius, 'pixel')}, strength {refinement.strength:g})."
        )
    cleaned = []
    if refinement.min_object:
        cleaned.append(
            f"objects of fewer than {_plural(refinement.min_object, 'pixel')} were "
            "given to the class around them"
        )
    if refinement.fill_holes:
        cleaned.append(
            f"holes of fewer than {_plural(refinement.fill_holes, 'pixel')} were filled"
        )
    if cleaned:
        text = _listed(cleaned)
        yield f"{text[0].upper()}{text[1:]}."


def _fractions(
    made: Provenance, images: Sequence[ExportImage], fractions: Mapping[str, Fractions]
) -> Iterable[str]:
    phases = [phase for found in fractions.values() for phase in found.phases]
    has_bars = made.interval and any(phase.interval for phase in phases)
    bars = f" ({made.interval} in brackets)" * bool(has_bars)
    for image in images:
        found = fractions.get(image.stem)
        listed = []
        for phase in sorted(found.phases if found else (), key=lambda p: p.class_id):
            ends = " to ".join(map(_percent, phase.interval or ()))
            told = f"{_name(made, phase.class_id)} {_percent(phase.fraction)}"
            listed.append(told + f" [{ends}]" * bool(ends))
        if listed:
            where = f" of {image.name}" * (len(images) > 1)
            yield f"The area fractions{where} were{bars}: {_listed(listed)}."


def _software(made: Provenance) -> str:
    others = [f"{k} {v}" for k, v in made.versions.items() if k != "napari-hrdv2"]
    used = f" with {_listed(others)}" if others else ""
    return f"The computation ran on {made.date}{used}."


def _name(made: Provenance, class_id: int) -> str:
    info = made.classes.get(class_id)
    return info.name if info else f"class {class_id}"


def _plural(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _percent(fraction: float) -> str:
    """Two digits behind the point, more for what would else be 0."""
    percent = 100 * fraction
    return f"{percent:.2f} %" if percent >= 0.01 or not fraction else f"{percent:.2g} %"


def _listed(items: Iterable[str]) -> str:
    """Return "a", "a and b", "a, b and c"."""
    *most, last = items
    return f"{', '.join(most)} and {last}" if most else last
