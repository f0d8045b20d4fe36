"""``backbones``: what there is to choose from."""

from __future__ import annotations

from typing import Any

from . import _options as options
from ._report import Report


def backbones(as_json: options.Json = False) -> None:
    """List the backbones: channels, patch size, licence, download and state."""
    from napari_hrdv2.core.backbones import (
        backbone_info,
        backbone_names,
        backbone_state,
        backbone_variants,
    )

    report = Report(as_json)
    rows: list[dict[str, Any]] = []
    for name in backbone_names():
        info = backbone_info(name)
        rows.append(
            {
                "name": name,
                "channels": info.channels,
                "patch_size": info.patch_size,
                "licence": info.licence,
                "source": info.source,
                "download_bytes": info.download_bytes,
                "state": backbone_state(name),
                "conditions": info.conditions,
                "variants": list(backbone_variants(name)),
            }
        )
    wide = max(len(str(row["name"])) for row in rows)
    legal = max(len(str(row["licence"])) for row in rows)
    report.say(
        f"{'name':<{wide}}  channels  patch  {'licence':<{legal}}  {'MB':>5}  state"
    )
    for row in rows:
        megabytes = round(row["download_bytes"] / 1e6) or "-"
        report.say(
            f"{row['name']:<{wide}}  {row['channels']:>8}  {row['patch_size']:>5}  "
            f"{row['licence']:<{legal}}  {megabytes:>5}  {row['state']}"
        )
    report.finish({"backbones": rows})
