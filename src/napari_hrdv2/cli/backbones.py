"""``backbones``: what there is to choose from, and its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .shared import Json, Report, say_licences

backbones = typer.Typer(rich_markup_mode=None)
Names = Annotated[
    list[str],
    typer.Argument(
        help="Names of the list, variants of them, or Hub ids.", metavar="NAME…"
    ),
]


@backbones.callback(invoke_without_command=True)
def list_backbones(context: typer.Context, as_json: Json = False) -> None:
    """List the backbones: channels, patch size, licence, download, source and state.

    The state is ready (nothing is needed), cached (on this machine), download, gated
    (conditions must be accepted first) or file (a file must be given).

    With a command: bring their weights to this machine, or to one without a network.
    """
    if context.invoked_subcommand is not None:
        return
    from napari_hrdv2.core.backbones import (
        backbone_info,
        backbone_names,
        backbone_state,
        backbone_variants,
    )

    report = Report(as_json)
    rows: list[dict[str, Any]] = []
    table: list[tuple[str, ...]] = [
        ("name", "channels", "patch", "licence", "MB", "source", "state")
    ]
    for name in backbone_names():
        info, state = backbone_info(name), backbone_state(name)
        fields = ("channels", "patch_size", "licence", "source", "download_bytes")
        about = {field: getattr(info, field) for field in (*fields, "conditions")}
        variants = list(backbone_variants(name))
        rows.append({"name": name, **about, "state": state, "variants": variants})
        channels, patch, licence, source, size = (about[field] for field in fields)
        megabytes = round(size / 1e6) or "-"
        cells = (name, channels, patch, licence, megabytes, source or "-", state)
        table.append(tuple(map(str, cells)))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        shown = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        report.say("  ".join(shown).rstrip())
    report.finish({"backbones": rows})


@backbones.command()
def download(names: Names, as_json: Json = False) -> None:
    """Download weights into the Hub's cache; what is there already stays."""
    from napari_hrdv2.core.backbones import backbone_info, files_of

    report = Report(as_json)
    names = _parts(names)
    say_licences(names, report.say)
    found = {}
    for name in names:
        files = files_of(backbone_info(name), report.progress(name))
        found[name] = [str(file.path) for file in files]
        for file in files:
            report.say(f"{name}: {file.path}")
    report.finish({"downloaded": found})


@backbones.command("export")
def export_file(
    names: Names,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")],
    as_json: Json = False,
) -> None:
    """Write weights into one file, for a machine without a network.

    What is not on this machine is downloaded. `backbones import` reads the file there.
    """
    from napari_hrdv2.core.backbones.archive import export_weights

    report = Report(as_json)
    names = _parts(names)
    say_licences(names, report.say)
    size = export_weights(names, out, progress=report.progress("export"))
    report.say(f"{out}: {', '.join(names)}, {size / 1e6:.1f} MB")
    report.finish({"names": names, "output": str(out), "bytes": size})


@backbones.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="What `backbones export` wrote.")],
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            help="A folder to share, for NAPARI_HRDV2_WEIGHTS; the Hub's cache by "
            "default.",
            metavar="FOLDER",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Take the weights of an exported file; its checksums are verified first."""
    from napari_hrdv2.core.backbones.archive import import_weights

    report = Report(as_json)
    done = import_weights(file, to, progress=report.progress("import"))
    already = f", {done.present} were there already" if done.present else ""
    report.say(
        f"{', '.join(done.names)}: {done.written} files into {done.folder}{already}"
    )
    about = {"names": list(done.names), "folder": str(done.folder)}
    report.finish({**about, "written": done.written, "present": done.present})


def _parts(names: list[str]) -> list[str]:
    """Return the parts of joined names that need weights, each once."""
    from napari_hrdv2.core.backbones import backbone_state

    found: list[str] = []
    for name in names:
        parts = name.split("+")
        joined = len(parts) > 1
        found += [p for p in parts if not joined or backbone_state(p) != "ready"]
    return list(dict.fromkeys(found))
