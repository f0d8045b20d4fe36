"""``bench``: this machine's numbers beside the ones to reach."""

from __future__ import annotations

from napari_hrdv2.cli import options as options
from napari_hrdv2.cli.report import Report


def bench(as_json: options.Json = False) -> None:
    """Measure features and the time from stroke to segmentation on this machine."""
    from napari_hrdv2.cli.measure import run

    report = Report(as_json)
    report.finish(run(report.say))
