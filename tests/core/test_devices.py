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
