from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import replace

import pytest

import napari_hrdv2
from napari_hrdv2.core.samples import example


def test_help_lists_the_commands(command) -> None:
    outcome = command("--help")
    assert outcome.code == 0
    for name in ("demo", "segment", "apply", "evaluate", "backbones", "bench"):
        assert f"\n  {name} " in outcome.out


def test_help_of_a_command_needs_no_heavy_import() -> None:
    code = (
        "import sys; from napari_hrdv2.cli.app import run; run(['segment', '--help'])"
        "; print([m for m in ('torch', 'scipy', 'napari') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_version_is_the_package_s(command) -> None:
    assert command("--version").out == f"napari-hrdv2 {napari_hrdv2.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["segmnt"], "segmnt"),
        (["segment"], "Missing"),
        (["segment", "a.tif", "--strokes", "b"], "--strokes"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(command, arguments, complaint) -> None:
    outcome = command(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("napari-hrdv2: ")
    assert complaint in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_an_error_shows_its_place_only_when_asked(command) -> None:
    plain = command("segment", "none.tif", "--labels", "none.tif")
    assert plain.code == 1
    assert plain.err == "napari-hrdv2: none.tif: there is no such file\n"
    debug = command("--debug", "segment", "none.tif", "--labels", "none.tif")
    assert "Traceback" in debug.err
    assert debug.err.endswith(plain.err)


def test_stopping_by_hand_leaves_no_traceback(command, monkeypatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_hrdv2.files.open_image", interrupt)
    outcome = command("segment", "a.tif", "--labels", "b.tif")
    assert (outcome.code, outcome.err) == (130, "napari-hrdv2: stopped\n")


@pytest.mark.filterwarnings("default")
def test_warnings_are_one_line_without_the_source(command, monkeypatch) -> None:
    def warn(*_: object) -> None:
        warnings.warn("the image is dark", stacklevel=1)
        raise ValueError("too dark")

    monkeypatch.setattr("napari_hrdv2.files.open_image", warn)
    outcome = command("segment", "a.tif", "--labels", "b.tif")
    assert outcome.err.splitlines() == [
        "napari-hrdv2: warning: the image is dark",
        "napari-hrdv2: too dark",
    ]


def test_the_window_is_missed_by_name(command, monkeypatch) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setitem(sys.modules, "napari_hrdv2.widgets", None)
    outcome = command("demo", "--gui")
    assert outcome.code == 1
    assert 'pip install "napari-hrdv2[all]"' in outcome.err


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(28, "a.tif could not be written"), "a.tif could not be written"),
        (OSError(13, "Permission denied", "a.tif"), "a.tif: Permission denied"),
        (MemoryError(), "there is not enough memory; take a smaller image or backbone"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            "there is not enough memory; take a smaller image or backbone",
        ),
    ],
)
def test_errors_of_the_system_are_one_plain_sentence(
    command, monkeypatch, error: Exception, sentence: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("napari_hrdv2.files.open_image", fail)
    outcome = command("segment", "a.tif", "--labels", "b.tif")
    assert (outcome.code, outcome.err) == (1, f"napari-hrdv2: {sentence}\n")


def test_an_error_of_ours_is_not_hidden(monkeypatch) -> None:
    from napari_hrdv2.cli.app import run

    def fail(*_: object) -> None:
        raise RuntimeError("a mistake in the program")

    monkeypatch.setattr("napari_hrdv2.files.open_image", fail)
    with pytest.raises(RuntimeError, match="a mistake in the program"):
        run(["segment", "a.tif", "--labels", "b.tif"])


def test_results_never_hold_numbers_that_json_has_not(command, monkeypatch) -> None:
    monkeypatch.setattr(
        "napari_hrdv2.cli.bench.measure", lambda: {"machine": {"share": float("nan")}}
    )
    outcome = command("bench", "--json")
    assert (outcome.code, outcome.out) == (1, "")


def test_the_bench_prints_rates_memory_and_the_parts_of_a_stroke(
    command, monkeypatch
) -> None:
    from napari_hrdv2.cli import bench

    whole = example()
    quarter = replace(
        whole, image=whole.image[:128, :128], labels=whole.labels[:128, :128]
    )
    monkeypatch.setattr("napari_hrdv2.core.samples.example", lambda: quarter)
    monkeypatch.setattr(bench, "STROKES", 1)
    monkeypatch.setattr(bench, "matmul_rates", lambda: {"float32": 2e9})
    figures = command("bench", "--json").json
    assert figures["machine"]["cores"] > 0
    assert figures["matmul_gflops"] == {"float32": 2.0}
    assert figures["embedded_features"].keys() == {"seconds", "peak_megabytes"}
    parts = figures["scribble_milliseconds"]
    assert list(parts) == ["total", "gather", "refit", "predict"]
    assert all(milliseconds > 0 for milliseconds in parts.values())
