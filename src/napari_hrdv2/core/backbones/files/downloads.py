"""The files of a backbone, on this machine or fetched from the Hub."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from napari_hrdv2.core.backbones.files.hub import (
    PREPROCESSORS,
    Progress,
    cached_file,
    fetch_config,
    fetch_preprocessor,
    fetch_weights,
)
from napari_hrdv2.core.backbones.registry import (
    backbone_info,
    backbone_state,
    hub_source,
    is_unnamed_hub_id,
    require_known,
    split_facets,
)
from napari_hrdv2.core.errors import WeightsError

log = logging.getLogger(__name__)


class HubFile(NamedTuple):
    """A file of a Hub repository and where it is on this machine.

    Attributes
    ----------
    repository : str
    revision : str or None
        The commit it is pinned to; None for the newest.
    filename : str
    path : pathlib.Path
        In a folder laid out as the Hub's cache.
    """

    repository: str
    revision: str | None
    filename: str
    path: Path

    @property
    def commit(self) -> str:
        """The commit it is of: the folder that the cache keeps it in."""
        return self.path.parents[self.filename.count("/")].name


def download_weights(
    name: str, progress: Progress | None = None, *, filename: str | None = None
) -> Path:
    """Return a local file with the weights of a backbone, downloaded if need be.

    By default it is the file of the registry, or the usual one. Conditions of their
    owner are logged before a download.
    """
    info = backbone_info(name)
    if info.bundled:
        raise ValueError(
            f"backbone: {name} comes with the package; there is nothing to download"
        )
    if not info.source:
        raise WeightsError(f"weights: {name}: {info.conditions}")
    if backbone_state(name) == "gated":
        log.warning("%s: %s", name, info.conditions)
    source = hub_source(name)
    return fetch_weights(
        source.repository,
        revision=source.revision,
        filename=filename or source.filename,
        progress=progress,
    )


def download_files(name: str, progress: Progress | None = None) -> list[HubFile]:
    """Return all files that `load_backbone` needs of a name, downloaded if need be."""
    require_known(name)
    weights = download_weights(name, progress)
    source = hub_source(name)
    repository, revision = source.repository, source.revision
    filename = source.filename or weights.name
    files = [HubFile(repository, revision, filename, weights)]
    if is_unnamed_hub_id(split_facets(name)[0]):
        fetch_config(repository, revision=revision)
        fetch_preprocessor(repository, revision=revision)
        for filename in ("config.json", *PREPROCESSORS):
            path = cached_file(repository, filename, revision=revision)
            if path is not None:
                files.append(HubFile(repository, revision, filename, path))
    return files
