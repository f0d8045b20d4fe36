from __future__ import annotations

from napari_hrdv2.core.backbones import backbone_names


def test_all_backbones_are_listed_with_their_state(command) -> None:
    outcome = command("backbones", "--json")
    rows = {row["name"]: row for row in outcome.json["backbones"]}
    assert list(rows) == list(backbone_names())
    assert rows["filters"]["state"] == "ready"
    assert rows["dinov2-small"]["channels"] == 384
    assert rows["dinov2-small"]["patch_size"] == 14
    assert rows["dinov2-small"]["licence"]


def test_the_table_is_aligned(command) -> None:
    lines = command("backbones").out.splitlines()
    assert lines[0].split()[:3] == ["name", "channels", "patch"]
    column = lines[0].index("state")
    assert {line[column:] for line in lines[1:]} <= {"ready", "cached", "download"}
