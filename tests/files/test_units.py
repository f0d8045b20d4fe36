from __future__ import annotations

import subprocess
import sys

import pytest

from napari_hrdv2.files.units import (
    ascii_unit,
    converted,
    length_of,
    unit_name,
    unit_symbol,
)

MICROMETRES = ("µm", "μm", "um", "UM", "micron", "Microns", "micrometer", "micrometre")


@pytest.mark.parametrize("spelling", [*MICROMETRES, " µ m "])
def test_every_spelling_of_a_micrometre_is_one_symbol(spelling: str) -> None:
    assert unit_symbol(spelling) == "µm"


@pytest.mark.parametrize(
    ("spelling", "symbol"),
    [
        ("NM", "nm"),
        ("nanometers", "nm"),
        ("picometer", "pm"),
        ("å", "Å"),
        ("Angstrom", "Å"),
        ("millimeter", "mm"),
        ("cm", "cm"),
        ("meter", "m"),
        ("inch", "inch"),
    ],
)
def test_other_lengths_have_their_symbols(spelling: str, symbol: str) -> None:
    assert unit_symbol(spelling) == symbol


@pytest.mark.parametrize("word", ["", "pixel", "Pixels", "px", "dimensionless"])
def test_no_unit_is_a_pixel(word: str) -> None:
    assert unit_symbol(word) == "pixel"


@pytest.mark.parametrize("word", ["Ω", "second", "kpixel", "2 m", "µm²", "wobble"])
def test_what_is_no_length_stays_as_it_is(word: str) -> None:
    assert unit_symbol(word) == word.replace(" ", "")


def test_names_and_ascii_spellings_are_those_of_other_programs() -> None:
    names = [unit_name(unit) for unit in ("µm", "micron", "Å", "inch", "wobble")]
    assert names == ["micrometer", "micrometer", "angstrom", "inch", "wobble"]
    spelled = [ascii_unit(unit) for unit in ("μm", "micrometer", "Å", "nm", "pixel")]
    assert spelled == ["um", "um", "angstrom", "nm", "pixel"]


def test_lengths_are_converted() -> None:
    assert converted(2, "inch", "µm") == pytest.approx(50_800)
    assert converted(0.5, "cm", "µm") == pytest.approx(5_000)


@pytest.mark.parametrize("text", ["1,000nm", "12,500 nm", "2,250e1 um"])
def test_a_comma_that_may_mean_thousands_is_asked_about(text: str) -> None:
    with pytest.raises(ValueError, match="pixel size: ") as raised:
        length_of(text)
    number = text.split("e")[0].rstrip(" nm")
    for reading in (number.replace(",", "."), number.replace(",", "")):
        assert reading in str(raised.value)


def test_a_comma_that_can_only_be_a_point_is_one() -> None:
    found = [length_of(text)[0] for text in ("0,125 um", "1,25nm", "1234,567 nm")]
    assert found == [0.125, 1.25, 1234.567]


@pytest.mark.slow
def test_pint_is_imported_when_a_unit_is_read() -> None:
    code = "import sys, napari_hrdv2.files; print('pint' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n"
