"""Blocks of features that are kept: in memory, and on disk where memory ends."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import psutil
from safetensors import SafetensorError

if TYPE_CHECKING:
    from torch import Tensor

    from napari_hrdv2.core.features.base import Features

    from .grid import Key

_PREFIX = f"blocks-{platform.node()}-"  # of folders, followed by the process

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

    def keys(self) -> list[Key]:
        """Return which blocks are in memory."""
        with self._lock:
            return list(self._blocks)

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
        with self._lock:
            self._blocks.clear()


class Spill:
    """Tokens of blocks in files of a new folder, which goes with this object.

    Those that were used least recently go when there are more than so many bytes.
    Folders of processes that were killed go when a new one is made.
    """

    def __init__(self, parent: str | os.PathLike[str], most_bytes: int) -> None:
        Path(parent).mkdir(parents=True, exist_ok=True)
        _remove_leftovers(Path(parent))
        name = f"{_PREFIX}{os.getpid()}-"
        self.folder = Path(tempfile.mkdtemp(prefix=name, dir=parent))
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
        tables = sorted(found.items())
        return [x.movedim(1, -1) if n.endswith("planes") else x for n, x in tables]

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
            with suppress(OSError):  # Windows keeps what is in use
                self._path(self._sizes.popitem(last=False)[0]).unlink()
        if size > self.most_bytes:
            return
        try:
            save_file(tables, self._path(key))
        except (OSError, SafetensorError) as error:  # a full disk: go on without
            log.warning("a block of features is not kept on disk: %s", error)
            with suppress(OSError):
                self._path(key).unlink()
            return
        self._sizes[key] = size

    def _path(self, key: Key) -> Path:
        return self.folder / f"{key[0]}-{key[1]}.safetensors"


def _remove_leftovers(parent: Path) -> None:
    """Remove the folders of processes of this machine that are no more."""
    for folder in parent.iterdir():
        process = folder.name.removeprefix(_PREFIX).partition("-")[0]
        is_ours = folder.name.startswith(_PREFIX) and process.isdecimal()
        if is_ours and not psutil.pid_exists(int(process)):
            shutil.rmtree(folder, ignore_errors=True)
