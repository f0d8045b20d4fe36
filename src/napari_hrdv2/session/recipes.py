"""What a classifier says about the features it was made for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_hrdv2.session.settings import (
    FeatureSettings,
    patch_size,
    stride_in_pixels,
)

if TYPE_CHECKING:
    from napari_hrdv2.core.classifier.pixel_classifier import PixelClassifier
    from napari_hrdv2.core.features.high_resolution import Features, Recipe


def value_range(classifier: PixelClassifier) -> tuple[float, float] | None:
    """Return the grey levels that became 0 and 1 in what it was trained on.

    None where they make no difference to any part of the backbone.
    """
    from napari_hrdv2.core.backbones.loading import backbone_info

    absolute = [
        recipe
        for recipe in classifier.recipes
        if backbone_info(recipe.backbone).absolute_levels
    ]
    return absolute[0].value_range if absolute else None


def transforms_of(recipes: Sequence[Recipe]) -> str:
    """Return the choice that the recipes of joined parts come from."""
    from napari_hrdv2.core.backbones.loading import backbone_info

    # Where every pixel is a patch, the features move along with the image and it runs
    # once, whatever was chosen.
    chosen = {r.transforms for r in recipes if backbone_info(r.backbone).patch_size > 1}
    if len(chosen) > 1:
        return "auto"
    return chosen.pop() if chosen else recipes[0].transforms


def stride_of(recipes: Sequence[Recipe]) -> int | None:
    """Return the stride that the recipes come from; None is each part's patch size."""
    from napari_hrdv2.core.backbones.loading import backbone_info

    if all(r.stride == backbone_info(r.backbone).patch_size for r in recipes):
        return None
    return max(recipe.stride for recipe in recipes)


def main_of(recipes: Sequence[Recipe]) -> Recipe:
    """Return the recipe of the part with the largest patches."""
    from napari_hrdv2.core.backbones.loading import backbone_info

    return max(recipes, key=lambda recipe: backbone_info(recipe.backbone).patch_size)


def debias_of(recipes: Sequence[Recipe]) -> str:
    """Return the choice that the recipes of joined parts come from.

    A part that does not know positions has "none", whatever was chosen.
    """
    return next((r.debias for r in recipes if r.debias != "none"), "none")


def settings_for(
    classifier: PixelClassifier, settings: FeatureSettings
) -> FeatureSettings:
    """Return the settings changed to those that the classifier was trained with.

    The device stays. A local weights file is kept if the backbone stays the same.
    """
    recipes = classifier.recipes
    if not recipes:
        return settings
    backbone = "+".join(recipe.backbone for recipe in recipes)
    main = main_of(recipes)
    same = backbone == settings.backbone
    chosen = replace(
        settings,
        backbone=backbone,
        weights=settings.weights if same else None,
        value_range=value_range(classifier),
        debias=debias_of(recipes),
    )
    patch = patch_size(chosen)
    if patch > 1:  # else it ran once, on every pixel, whatever the settings say
        chosen = replace(
            chosen,
            transforms=transforms_of(recipes),
            interpolation=main.interpolation.partition("@")[0],
        )
    if (stride_in_pixels(chosen) or patch) != main.stride:
        strides = {max(patch // 2, 1): "half", patch: "auto"}
        stride = strides.get(main.stride, str(main.stride))
        chosen = replace(chosen, stride=stride)
    return chosen


def must_be_trained_again(classifier: PixelClassifier, features: Features) -> bool:
    """Whether features of its backbone have other channels than a classifier reads."""
    from napari_hrdv2.core.classifier.compatibility import other_channels

    return bool(other_channels(classifier.recipes, features.recipes))


def mismatch(classifier: PixelClassifier, features: Features) -> str:
    """Return why a classifier cannot be used on features as it was trained, or ""."""
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # told below
            classifier.check_can_read(features)
    except ValueError as error:
        return f"{error}."
    theirs, ours = (
        [_essence(recipe) for recipe in recipes]
        for recipes in (classifier.recipes, features.recipes)
    )
    if theirs and ours and theirs != ours:
        return "The features were made in another way than the loaded classifier's."
    return ""


def _essence(recipe: Recipe) -> Recipe:
    """Return a recipe without what changes next to nothing."""
    from napari_hrdv2.core.backbones.loading import backbone_info

    # The number format differs from machine to machine.
    recipe = replace(recipe, precision="")
    if backbone_info(recipe.backbone).absolute_levels:
        return recipe
    return replace(recipe, value_range=(0.0, 1.0))
