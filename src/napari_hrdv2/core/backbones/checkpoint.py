"""Reading the files that weights come in, without running anything they hold."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from napari_hrdv2.core.atomic import atomic_path
from napari_hrdv2.core.errors import WeightsError, is_out_of_memory
from napari_hrdv2.core.limits import parse_json

_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
# How torch.save began its files before it wrote archives: a pickled number.
_BEFORE_ARCHIVES = b"\x80\x02\x8a\nl\xfc\x9cF\xf9"
PREFERRED = ("model.safetensors", "pytorch_model.bin")
# Under these a training run wraps its dictionaries; the first that is there is taken.
_WRAPPERS = ("state_dict", "model", "teacher")
_TOKENS = ("cls_token", "register_tokens", "pos_embed")
Shapes = Mapping[str, tuple[int, ...]]
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Weights:
    """The tensors of a network and their fingerprint."""

    state: dict[str, Tensor]  # under the names of our network, on the CPU
    hash: str  # the same whatever the file was and however it named them


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """Return 16 digits of a sha256 of names, shapes and float32 numbers."""
    hashed = hashlib.sha256()
    for name, x in state.items():
        hashed.update(f"{name} {tuple(x.shape)}\n".encode())
        hashed.update(x.contiguous().numpy().data)
    return hashed.hexdigest()[:16]


def require_finite(state: Mapping[str, Tensor], file: Path) -> None:
    """Raise WeightsError where a tensor holds NaN or infinite numbers."""
    for name, x in state.items():
        if not torch.isfinite(x).all():
            raise WeightsError(
                f"weights: {file} holds NaN or infinite numbers in {name}; fetch it "
                "again, or take another checkpoint"
            )


# --- What a network wants -------------------------------------------------------------
def shapes_of(network: Callable[[], nn.Module]) -> Shapes:
    """Return the shape of every tensor of a network, which takes no memory."""
    with torch.device("meta"):
        state = network().state_dict()
    return {name: tuple(x.shape) for name, x in state.items()}


def frozen(network: Callable[[], M], weights: Weights) -> M:
    """Return a network with these weights, to compute features with."""
    with torch.device("meta"):
        made = network()
    made.load_state_dict(weights.state, assign=True)
    return made.eval().requires_grad_(False)


def random_state(
    shapes: Shapes, seed: int, known: Mapping[str, Tensor] | None = None
) -> Weights:
    """Return seeded random weights, the same on every call.

    Each layer keeps the variance of what it is given, and branches are added at a
    third, so that activations stay near 1 in every number format.
    """
    generator = torch.Generator().manual_seed(seed)
    state = dict(known or {})
    for name, shape in shapes.items():
        if name in state:
            continue
        if name.endswith("gamma"):
            state[name] = torch.full(shape, 1 / 3)
        elif name.endswith("bias"):
            state[name] = torch.zeros(shape)
        elif len(shape) == 1 and name not in _TOKENS:
            state[name] = torch.ones(shape)
        else:
            scale = 0.2 if name in _TOKENS else 1 / math.sqrt(math.prod(shape[1:]))
            state[name] = scale * torch.randn(shape, generator=generator)
    return Weights(state, "random" if seed == 0 else f"random-{seed}")


def renamed(name: str, patterns: Iterable[tuple[str, str]]) -> str:
    """Return the name of a tensor after all that is replaced in it, in that order."""
    for pattern, replacement in patterns:
        name = re.sub(pattern, replacement, name)
    return name


def matched(
    state: Mapping[str, Tensor],
    want: Shapes,
    file: Path,
    explain: Callable[[Shapes], str],
) -> Weights:
    """Return the tensors in float32, if they are those wanted, of finite numbers."""
    have = {name: tuple(x.shape) for name, x in state.items()}
    if have != want:
        raise WeightsError(f"weights: {file} does not fit: {explain(have)}")
    wanted = {name: state[name].float() for name in want}
    require_finite(wanted, file)
    return Weights(wanted, fingerprint(wanted))


def misfit(have: Shapes, want: Shapes) -> str:
    """Return which tensors are missing, unexpected or misshaped, or ""."""
    others = [name for name in want if have.get(name, want[name]) != want[name]]
    problems = {
        "missing": [name for name in want if name not in have],
        "unexpected": [name for name in have if name not in want],
        "misshaped": [f"{n} (is {have[n]}, must be {want[n]})" for n in others],
    }
    return "; ".join(listing(word, names) for word, names in problems.items() if names)


def listing(word: str, names: list[str]) -> str:
    """Return a word and the first three names after it."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{word} {', '.join(names[:3])}{more}"


# --- Files ----------------------------------------------------------------------------
def weights_file(path: str | os.PathLike[str]) -> Path:
    """Return the checkpoint at a path: the file itself, or the one in the folder."""
    path = Path(path).expanduser()
    if not path.exists():
        raise WeightsError(f"weights: there is no file or folder {path}")
    if not path.is_dir():
        return path
    for name in PREFERRED:
        if (path / name).is_file():
            return path / name
    found = sorted(p for p in path.iterdir() if p.suffix in _SUFFIXES and p.is_file())
    if len(found) == 1:
        return found[0]
    names = ", ".join(p.name for p in found) or "none"
    raise WeightsError(
        f"weights: the folder {path} must hold model.safetensors or a single "
        f"checkpoint ({', '.join(_SUFFIXES)}); it holds {names}"
    )


def write_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
) -> None:
    """Write a safetensors file whole or not at all; equal content, equal bytes."""
    from safetensors.torch import save

    data = save({n: x.detach().cpu().contiguous() for n, x in tensors.items()})
    length = int.from_bytes(data[:8], "little")
    # safetensors itself writes metadata in any order.
    header = json.loads(data[8 : 8 + length]) | {"__metadata__": dict(metadata)}
    text = json.dumps(header, sort_keys=True).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(memoryview(data)[8 + length :])


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a file that holds a JSON object, such as a config.json."""
    try:
        content = parse_json(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("it is no object")
    except (OSError, ValueError) as error:
        raise WeightsError(f"weights: {path} is not a readable {path.name}") from error
    return content


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint as they are named in it.

    The kind of file is told by its first bytes, not by its suffix.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            start = file.read(9)
    except OSError as error:
        raise WeightsError(
            f"weights: {path} cannot be read: {error.strerror}"
        ) from error
    try:
        if start[8:9] == b"{":
            from safetensors.torch import load_file

            return load_file(path)
        if start.startswith(b"PK\x03\x04"):
            _require_torch_archive(path)
        elif start[:1] != b"\x80":
            seen = "it is empty" if not start else f"it begins with {start[:4]!r}"
            raise WeightsError(
                f"weights: {path} is not a checkpoint: {seen}; a safetensors file or a "
                "PyTorch state dict is needed"
            )
        elif start != _BEFORE_ARCHIVES:
            raise pickle.UnpicklingError
        content = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"weights: {path} holds Python objects beside tensors and was not loaded, "
            "because unpickling them can run code; save its state dict alone, as "
            "safetensors"
        ) from error
    except Exception as error:  # damaged files raise anything
        if is_out_of_memory(error):
            raise
        raise WeightsError(
            f"weights: {path} is damaged or was not downloaded to its end; fetch it "
            "again"
        ) from error
    return _tensors(content, path)


def _require_torch_archive(path: Path) -> None:
    # The directory of an archive is at its end: without it, this raises.
    with zipfile.ZipFile(path) as archive:
        members = {Path(name).name for name in archive.namelist()}
        packed = sum(one.file_size - one.compress_size for one in archive.infolist())
        if packed > 0:  # torch packs nothing
            raise ValueError("an archive that grows when it is read")
    if "data.pkl" not in members or "constants.pkl" in members:
        raise WeightsError(
            f"weights: {path} is an archive but not one of a PyTorch state dict"
        )


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """Unwrap the dictionaries of a training run until tensors appear."""
    while isinstance(content, dict):
        tensors = {n: x for n, x in content.items() if isinstance(x, Tensor)}
        inner = [content[w] for w in _WRAPPERS if isinstance(content.get(w), dict)]
        if tensors and not inner:
            return tensors
        if not inner:
            break
        content = inner[0]
    raise WeightsError(f"weights: {path} is not a checkpoint: it holds no tensors")
