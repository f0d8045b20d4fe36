"""Images that are segmented block by block: features on demand, results in parts."""

from .features import MOST_BYTES, BlockRoom, reporting
from .results import BlockRequest, begun, block_labels, block_request, take

__all__ = [
    "MOST_BYTES",
    "BlockRequest",
    "BlockRoom",
    "begun",
    "block_labels",
    "block_request",
    "reporting",
    "take",
]
