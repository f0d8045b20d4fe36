"""``python -m napari_hrdv2`` is the command line."""

from napari_hrdv2.cli import main

main()
