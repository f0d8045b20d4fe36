"""The paragraph of a paper's methods section that says what was done in a window."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .provenance import ImageRecord, PhaseFractionRecord, Provenance

_HRDV2 = (
    "R. Docherty, A. Vamvakeros, S. J. Cooper, Upsampling DINOv2 features for "
    "unsupervised vision tasks and weakly supervised materials segmentation, "
    "arXiv:2410.19836 (2024)."
)
_SMOOTHINGS = {
    "guided": "a guided filter",
    "crf": "a conditional random field with a colour term",
}


def methods_paragraph(provenance: Provenance) -> str:
    """Return what was done, in prose with numbered references.

    Parameters
    ----------
    provenance : Provenance

    Returns
    -------
    str
        A paragraph, and below it the references. Each number in it is of the record.
    """
    references = _References()
    sentences = [
        _opening(provenance),
        *_features(provenance, references),
        *_classifier(provenance),
        *_excluded(provenance),
        *_refinement(provenance),
        *_fractions(provenance),
        _software(provenance),
    ]
    return f"{' '.join(sentences)}\n\n{references}"


class _References:
    """Numbers references as they are cited."""

    def __init__(self) -> None:
        self._cited: list[str] = []

    def cite(self, *references: str) -> str:
        """Return their numbers, as " [1, 2]"; nothing for none."""
        self._cited += [r for r in references if r not in self._cited]
        numbers = sorted(self._cited.index(r) + 1 for r in references)
        return f" [{', '.join(map(str, numbers))}]" if numbers else ""

    def __str__(self) -> str:
        lines = (f"[{i}] {text}" for i, text in enumerate(self._cited, 1))
        return "\n".join(lines) + "\n"


def _opening(provenance: Provenance) -> str:
    version = provenance.versions.get("napari-hrdv2", "")
    many = len(provenance.images) > 1
    listed = _listed(map(_described, provenance.images))
    return (
        f"The micrograph{'s' * many} {listed} {'were' if many else 'was'} segmented "
        f"with napari-hrdv2{f' {version}' * bool(version)}."
    )


def _described(image: ImageRecord) -> str:
    height, width = image.shape
    size = f"{width} × {height} pixels"
    if image.pixel_size is not None:
        length, unit = image.pixel_size
        size += f", pixel size {length:g} {unit}"
    return f"{image.name} ({size})"


def _features(provenance: Provenance, references: _References) -> Iterable[str]:
    from napari_hrdv2.core.backbones import backbone_info

    made = provenance.features
    parts = made.backbone.split("+")
    specs = [backbone_info(part) for part in parts]
    hashes = provenance.weights_hashes or ("",) * len(parts)
    backbones = _listed(
        f"{part}{f' (weights {fingerprint})' * bool(fingerprint)}"
        f"{references.cite(*spec.references)}"
        for part, spec, fingerprint in zip(parts, specs, hashes, strict=True)
    )
    many = len(parts) > 1
    method = references.cite(_HRDV2)
    yield (
        "Each pixel was described by features of the frozen "
        f"backbone{'s' * many} {backbones}, following HR-Dv2{method}."
    )
    patches = [spec.patch_size for spec in specs]
    if max(patches) > 1:
        apart = "one patch" if made.stride is None else f"{made.stride} pixels"
        upsampled = f"upsampled to pixels ({made.interpolation} interpolation)"
        end = (
            f" and {upsampled}"
            if made.transforms == "identity"
            else f", {upsampled} and averaged"
        )
        copies = _copies(made.transforms, made.stride or max(patches))
        yield f"Tokens {apart} apart were computed {copies}{end}."
    if made.debias != "none":
        yield (
            "What the features of noise images tell of position was taken out of them "
            f"(debias {made.debias})."
        )
    ranges = {image.value_range for image in provenance.images if image.value_range}
    if ranges:
        told = _listed(f"{low:g}–{high:g}" for low, high in sorted(ranges))
        yield f"Grey levels of {told} were scaled to 0–1."


def _copies(transforms: str, stride: int) -> str:
    from napari_hrdv2.core.features.transforms import parse_transforms

    if transforms == "identity":
        return "on the image as it is"
    if transforms == "auto":  # joined parts, each with a set of its own
        return "on transformed copies of the image"
    count = len(parse_transforms(transforms, stride))
    return f"on {count} transformed copies of the image ({transforms})"


def _classifier(provenance: Provenance) -> Iterable[str]:
    if provenance.classifier_file is not None:
        yield (
            "A classifier that had been trained before "
            f"({provenance.classifier_file}) assigned each pixel to one of the classes "
            f"{_listed(info.name for info in provenance.classes.values())}."
        )
        return
    from napari_hrdv2.core.classifier.samples import MOST_PER_CLASS, SUBSAMPLED_ABOVE

    painted = [image for image in provenance.images if image.scribble_pixels]
    counts: dict[int, int] = {}
    for image in painted:
        for class_id, count in image.scribble_pixels.items():
            counts[class_id] = counts.get(class_id, 0) + count
    listed = _listed(
        f"{_name(provenance, i)} ({_plural(counts[i], 'pixel')})"
        for i in sorted(counts)
    )
    pixels = sum(image.shape[0] * image.shape[1] for image in painted)
    where = f" on {', '.join(image.name for image in painted)}"
    yield (
        f"Scribbles were painted by hand{where * (len(provenance.images) > 1)} for the "
        f"classes {listed}, {_percent(sum(counts.values()) / pixels)} of the pixels in "
        "all."
    )
    if any(max(image.scribble_pixels.values()) > SUBSAMPLED_ABOVE for image in painted):
        yield (
            f"Of a class with more than {SUBSAMPLED_ABOVE} painted pixels in an image, "
            "one was used of those in each block of 2 × 2 pixels, and at most "
            f"{MOST_PER_CLASS}, weighted to stand for all of them."
        )
    weights = "all classes weighted alike" if provenance.balanced else "unweighted"
    yield (
        "A multinomial logistic regression with L2 penalty on standardised, slightly "
        f"whitened features (C = {provenance.C:g}, {weights}) was fitted to these "
        f"pixels{_and_others(provenance)} and assigned every pixel to a class."
    )


def _and_others(provenance: Provenance) -> str:
    if not provenance.self_training:
        return ""
    from napari_hrdv2.core.classifier.background import pixels_per_image
    from napari_hrdv2.core.classifier.fitting import ROUNDS

    painted = sum(bool(image.scribble_pixels) for image in provenance.images)

    return (
        f" and then, {ROUNDS} times, to these and to those of a background sample of "
        f"{pixels_per_image(painted)} pixels{' of each image' * (painted > 1)} that "
        "were not labelled and that it was sure of (self-training)"
    )


def _excluded(provenance: Provenance) -> Iterable[str]:
    exclusion = [
        f"{_percent(image.excluded_pixels / (image.shape[0] * image.shape[1]))} "
        f"of {image.name}"
        for image in provenance.images
        if image.exclusion
    ]
    if exclusion:
        yield (
            f"Regions that show no material ({_listed(exclusion)}) were left out of "
            "training, segmentation and measurement."
        )


def _refinement(provenance: Provenance) -> Iterable[str]:
    refinement = provenance.refinement
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


def _fractions(provenance: Provenance) -> Iterable[str]:
    measured = [image for image in provenance.images if image.fractions]
    has_bars = any(
        fraction.low is not None
        for image in measured
        for fraction in image.fractions.values()
    )
    bars = f" ({provenance.interval} in brackets)" * bool(
        has_bars and provenance.interval
    )
    for image in measured:
        listed = _listed(
            f"{_name(provenance, i)} {_measured(image.fractions[i])}"
            for i in sorted(image.fractions)
        )
        where = f" of {image.name}" * (len(provenance.images) > 1)
        yield f"The area fractions{where} were{bars}: {listed}."


def _measured(fraction: PhaseFractionRecord) -> str:
    if fraction.low is None or fraction.high is None:
        return _percent(fraction.value)
    ends = f"{_percent(fraction.low)} to {_percent(fraction.high)}"
    return f"{_percent(fraction.value)} [{ends}]"


def _software(provenance: Provenance) -> str:
    others = [
        f"{name} {number}"
        for name, number in provenance.versions.items()
        if name != "napari-hrdv2"
    ]
    used = f" with {_listed(others)}" if others else ""
    return f"The computation ran on {provenance.date}{used}."


def _name(provenance: Provenance, class_id: int) -> str:
    info = provenance.classes.get(class_id)
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
