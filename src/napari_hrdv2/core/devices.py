"""Where to compute, in which number format, and how much memory there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of a name; ``"auto"`` prefers CUDA, then MPS, then the CPU."""
    present = device_names()
    if name == "auto":
        return torch.device(present[-1])
    choose = f"choose one of auto, {', '.join(present)}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device: {name!r} is not a device; {choose}") from error
    cuda = device.type == "cuda"
    too_high = cuda and (device.index or 0) >= torch.cuda.device_count()
    if device.type not in present or too_high:
        raise ValueError(f"device: this machine has no {name!r}; {choose}")
    return device


def device_names() -> tuple[str, ...]:
    """Return the kinds of device of this machine, slowest first."""
    names = ["cpu"]
    if torch.backends.mps.is_available():
        names.append("mps")
    if torch.cuda.is_available():
        names.append("cuda")
    return tuple(names)


def choose_precision(device: torch.device, name: str = "auto") -> torch.dtype:
    """Return the number format of a backbone; ``"auto"`` takes half where it is fast.

    Notes
    -----
    Without AMX, bfloat16 is slower than float32 on a CPU; float16 never gains there.
    """
    if name == "auto" and device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float16
    if name == "auto":
        is_fast = device.type == "cpu" and _cpu_has_amx()
        return torch.bfloat16 if is_fast else torch.float32
    if name not in _DTYPES:
        raise ValueError(
            f"precision: {name!r} is unknown; choose one of auto, {', '.join(_DTYPES)}"
        )
    return _DTYPES[name]


def _cpu_has_amx() -> bool:
    # Public from torch 2.11 on; older ones answer by a private function.
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is not None:
        return bool(capabilities().get("amx_bf16", False))
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(supported()) if supported is not None else False


def available_memory(device: torch.device) -> int:
    """Return the bytes that a new computation may take on the device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        free += torch.cuda.memory_reserved(device)  # of which some is not in use
        return int(free - torch.cuda.memory_allocated(device))
    rooms = (_room(*group) for group in _control_groups())
    available: int = psutil.virtual_memory().available
    return max(min(available, *rooms), 0)


_NO_LIMIT = 2**63
_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")
# Limit, use, and the line of memory.stat that says what of it can be given back.
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2 = ("memory.max", "memory.current", "inactive_file")


def _control_groups() -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Yield the control groups that limit this process: of Docker, SLURM, systemd.

    A container sees its own group where others have the root, whatever its name is.
    """
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:  # not on Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            root = _CONTROL_GROUPS / controllers
            files = _VERSION_1 if controllers else _VERSION_2
            own = root / path.lstrip("/")
            for group in (own, *own.parents):
                yield group, files
                if group == root:
                    break


def _room(group: Path, files: tuple[str, str, str]) -> int:
    """Return the bytes that the limit of a control group leaves."""
    limit, use, cache = files
    try:
        room = int((group / limit).read_text()) - int((group / use).read_text())
        lines = (group / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):  # no such group, or no limit: "max"
        return _NO_LIMIT
    return room + int(dict(line.split() for line in lines).get(cache, 0))


def checked_memory(needed: int, remedy: str, device: torch.device | None = None) -> str:
    """Return in words what a computation needs; raise MemoryError if it is not free."""
    free = available_memory(device or torch.device("cpu"))
    text = f"{bytes_text(needed)} of memory needed, {bytes_text(free)} free"
    if needed > free:
        raise MemoryError(f"{text}; {remedy}")
    return text


def bytes_text(count: float) -> str:
    """Return a number of bytes in words: ``"88 MB"``, ``"1.4 GB"``."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    size, unit = (1e6, "MB") if count >= 5e5 else (1e3, "kB")
    return f"{max(round(count / size), 1)} {unit}"
