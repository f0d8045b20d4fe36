"""Blocks of features that are kept: in memory, and on disk where memory ends."""

from __future__ import annotations

import logging
import shutil
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from napari_hrdv2.core.atomic import atomic_path

if TYPE_CHECKING:
    import os

    from torch import Tensor

    from napari_hrdv2.core.features.base import Features

Key = tuple[int, int]

log = logging.getLogger(__name__)


class BlockCache:
    """The blocks that were used last, under a budget; threads may share it.

    `spill` keeps the tokens of more of them in files; None for none.
    """

    def __init__(self, budget_bytes: int, spill: Spill | None = None) -> None:
        self.budget_bytes, self.spill = budget_bytes, spill
        self._blocks: OrderedDict[Key, Features] = OrderedDict()
        self._lock = Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the blocks take."""
        with self._lock:
            return sum(block.own_nbytes for block in self._blocks.values())

    def get(self, key: Key) -> Features | None:
        """Return a block that is in memory, which is then the last to go."""
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
            return self._blocks.get(key)

    def has(self, key: Key) -> bool:
        """Whether a block is kept, in memory or on disk."""
        return key in self._blocks or (self.spill is not None and key in self.spill)

    def put(self, key: Key, block: Features) -> None:
        """Keep a block."""
        with self._lock:
            self._blocks[key] = block

    def make_room(self, nbytes: int) -> None:
        """Drop the blocks that were used least recently, for a new one to fit."""
        with self._lock:
            kept = sum(block.own_nbytes for block in self._blocks.values())
            while self._blocks and kept + nbytes > self.budget_bytes:
                kept -= self._blocks.popitem(last=False)[1].own_nbytes

    def clear(self) -> None:
        """Drop all blocks that are in memory."""
        self.make_room(self.budget_bytes + 1)


class Spill:
    """Tokens of blocks in files of a new folder, which goes with this object.

    Those that were used least recently go when there are more than so many bytes.
    """

    def __init__(self, parent: str | os.PathLike[str], most_bytes: int) -> None:
        Path(parent).mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix="blocks-", dir=parent))
        self.most_bytes = most_bytes
        self._sizes: OrderedDict[Key, int] = OrderedDict()
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def __contains__(self, key: Key) -> bool:
        return key in self._sizes

    def load(self, key: Key) -> list[Tensor] | None:
        """Return the tokens of a block, if they are there."""
        from safetensors.torch import load_file

        if key not in self._sizes:
            return None
        self._sizes.move_to_end(key)
        try:
            found = load_file(self._path(key))
        except (OSError, SafetensorError) as error:  # computed again
            log.warning("a block of features cannot be read again: %s", error)
            return None
        return [
            table.movedim(1, -1) if name.endswith("planes") else table
            for name, table in sorted(found.items())
        ]

    def save(self, key: Key, tokens: Sequence[Tensor]) -> None:
        """Keep the tokens of a block, whole or not at all."""
        from safetensors.torch import save_file

        tables = {}
        for number, table in enumerate(tokens):  # (T, h, w, C), or filters' planes
            is_planes = table.stride(-1) != 1
            plain = table.movedim(-1, 1) if is_planes else table
            name = f"{number:03d} {'planes' if is_planes else 'tokens'}"
            tables[name] = plain.contiguous().cpu()
        size = sum(table.nbytes for table in tables.values())
        self._sizes.pop(key, None)
        while self._sizes and sum(self._sizes.values()) + size > self.most_bytes:
            self._path(self._sizes.popitem(last=False)[0]).unlink(missing_ok=True)
        if size > self.most_bytes:
            return
        try:
            with atomic_path(self._path(key)) as temporary:
                save_file(tables, temporary)
        except OSError as error:  # a full disk: what is in memory is enough to go on
            log.warning("a block of features is not kept on disk: %s", error)
            return
        self._sizes[key] = size

    def _path(self, key: Key) -> Path:
        return self.folder / f"{key[0]}-{key[1]}.safetensors"
