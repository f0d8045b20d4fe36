"""Results, tables, a script and a methods paragraph as files."""

from napari_hrdv2.session.export.export import Export, Exported, export_all, plan_export
from napari_hrdv2.session.export.formats import FORMATS, ExportFormat, image_format

__all__ = [
    "FORMATS",
    "Export",
    "ExportFormat",
    "Exported",
    "export_all",
    "image_format",
    "plan_export",
]
