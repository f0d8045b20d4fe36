"""Measuring a segmentation: phase fractions with an error bar, and particles."""

from __future__ import annotations

from .fractions import (
    FractionCounter,
    Fractions,
    PhaseFraction,
    combined_fractions,
    phase_fractions_with_error,
    write_fractions_csv,
)
from .particles import ParticleTable, PixelSize, particle_table

__all__ = [
    "FractionCounter",
    "Fractions",
    "ParticleTable",
    "PhaseFraction",
    "PixelSize",
    "combined_fractions",
    "particle_table",
    "phase_fractions_with_error",
    "write_fractions_csv",
]
