"""Results, tables, a script and a methods paragraph as files."""

from .export import Export, Exported, export_all, free_name, plan_export, stem_of
from .formats import FORMATS, ExportFormat, image_format

__all__ = [
    "FORMATS",
    "Export",
    "ExportFormat",
    "Exported",
    "export_all",
    "free_name",
    "image_format",
    "plan_export",
    "stem_of",
]
