"""A name gives a backbone: what turns a batch of images into a grid of tokens."""

from __future__ import annotations

import os
from collections.abc import Mapping

from napari_hrdv2.core.devices import choose_device
from napari_hrdv2.core.errors import is_out_of_memory

from .base import Backbone, BackboneSpec, JoinedBackbone, LoadOptions, Progress, Source
from .registry import backbone_info


def load_backbone(
    name: str,
    weights: Source | Mapping[str, Source] = None,
    device: str = "auto",
    *,
    precision: str = "auto",
    progress: Progress | None = None,
) -> Backbone | JoinedBackbone:
    """Return the backbone of that name, ready to compute.

    Parameters
    ----------
    name : str
        A name of `backbone_names` or `backbone_variants`, a Hub id ("owner/name"), or
        several joined by "+". After @ come facets of a ViT in place of the tokens of
        its last block, side by side as channels: "dino-small-8@k9,k11" are the keys of
        blocks 9 and 11, t the tokens, q the queries, v the values and a the attention
        of the class token.
    weights : path-like or mapping of str to path-like, optional
        A local checkpoint or a folder with one; ``"random"`` for seeded random
        weights, for tests and benchmarks. By default the Hub's cache, or a download.
        A mapping gives each part of a joined name its own.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
    precision : str
        ``"auto"``, ``"float32"``, ``"bfloat16"`` or ``"float16"``.
    progress : callable, optional
        Called with bytes done and bytes in all while weights are downloaded. What it
        raises ends the download.

    Raises
    ------
    MemoryError
        If the weights do not fit into the memory of the device.
    TypeError
        If an argument is not of these kinds.
    ValueError
        If the name is unknown, or its facets are of no such block.
    WeightsError
        If the weights cannot be had or do not fit.
    """
    for argument, value in (("name", name), ("device", device)):
        if not isinstance(value, str):
            raise TypeError(f"{argument}: {value!r} is not a string; give a name")
    # Before anything is downloaded: a misspelt second part should not cost the first.
    specs = [backbone_info(part) for part in name.split("+")]
    sources = _sources(specs, weights)
    chosen = choose_device(device)
    parts = tuple(
        _load(spec, LoadOptions(source, chosen, precision, progress))
        for spec, source in zip(specs, sources, strict=True)
    )
    return parts[0] if len(parts) == 1 else JoinedBackbone(parts)


def _sources(
    specs: list[BackboneSpec], weights: Source | Mapping[str, Source]
) -> list[Source]:
    """Return where the weights of each part come from."""
    names = [spec.name for spec in specs]
    if isinstance(weights, Mapping):
        strange = [key for key in weights if key not in names]
        if strange:
            raise ValueError(
                f"weights: {', '.join(map(repr, strange))} is no part of "
                f"{'+'.join(names)}"
            )
        sources = [weights.get(name) for name in names]
    else:
        joined = len(specs) > 1  # then bundled parts have what they need
        sources = [None if joined and spec.bundled else weights for spec in specs]
    for name, source in zip(names, sources, strict=True):
        if source is not None and not isinstance(source, str | os.PathLike):
            raise TypeError(
                f"weights: {source!r} for {name} is not a path; give a file, a folder "
                'or "random"'
            )
    return sources


def _load(spec: BackboneSpec, options: LoadOptions) -> Backbone:
    try:
        return spec.load(options)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryError(
            f"backbone: the weights of {spec.name} do not fit into the memory there is "
            f"for {options.device}; choose a smaller backbone or another device"
        ) from error
