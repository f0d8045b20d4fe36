"""Images that are segmented block by block: features on demand, results in parts."""

from .features import MOST_BYTES, BlockRoom, reporting
from .filling import Filling, begun, filling, sheet_of, take

__all__ = [
    "MOST_BYTES",
    "BlockRoom",
    "Filling",
    "begun",
    "filling",
    "reporting",
    "sheet_of",
    "take",
]
