"""Devices and precisions are chosen by name and refused by name."""

from __future__ import annotations

import pytest
import torch

from napari_hrdv2.core.devices import (
    available_memory,
    choose_device,
    choose_precision,
    device_names,
)

CPU = torch.device("cpu")


def test_auto_takes_the_fastest_kind_of_device():
    assert choose_device("auto").type == device_names()[-1]
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize("name", ["cuda:99", "toaster"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(ValueError, match="device: .* choose one of auto, cpu"):
        choose_device(name)


@pytest.mark.parametrize(("amx", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_half_precision_is_used_on_a_cpu_only_where_it_is_fast(monkeypatch, amx, dtype):
    monkeypatch.setattr("napari_hrdv2.core.devices._cpu_has_amx", lambda: amx)
    assert choose_precision(CPU) == getattr(torch, dtype)


def test_a_precision_can_be_asked_for():
    assert choose_precision(CPU, "float32") == torch.float32
    with pytest.raises(ValueError, match="precision: 'int8' is unknown"):
        choose_precision(CPU, "int8")


def test_there_is_memory():
    assert available_memory(CPU) > 1e6


@pytest.fixture
def in_group(tmp_path, monkeypatch):
    """Put this process into a control group whose files say what is given."""

    def put(controllers, path, **files):
        own = tmp_path / "own"
        own.write_text(f"7:cpu:/\n3:{controllers}:{path}\n")
        root = tmp_path / "cgroup"
        for name, text in files.items():
            group = root / controllers / path.lstrip("/")
            group.mkdir(parents=True, exist_ok=True)
            (group / name.replace("__", ".")).write_text(text)
        monkeypatch.setattr("napari_hrdv2.core.devices._OWN_GROUPS", own)
        monkeypatch.setattr("napari_hrdv2.core.devices._CONTROL_GROUPS", root)

    return put


def test_a_limit_of_a_container_is_respected(in_group):
    statistics = "anon 5\ninactive_file 20\n"
    in_group(
        "", "/", memory__max="1000", memory__current="300", memory__stat=statistics
    )
    assert available_memory(CPU) == 720


def test_a_limit_of_a_group_above_counts_too(in_group):
    in_group("", "/job", memory__max="500", memory__current="400", memory__stat="")
    in_group("", "/job/step", memory__max="max", memory__current="9", memory__stat="")
    assert available_memory(CPU) == 100


def test_control_groups_of_version_1_are_known(in_group):
    in_group(
        "memory",
        "/slurm",
        **{"memory__limit_in_bytes": "800", "memory__usage_in_bytes": "900"},
        memory__stat="total_inactive_file 40\n",
    )
    assert available_memory(CPU) == 0
