"""Values of a JSON file as dataclasses, each checked against its annotation."""

from __future__ import annotations

import logging
import types
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

log = logging.getLogger(__name__)

_WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    types.NoneType: "null",
    dict: "an object",
}


def checked(value: object, hint: Any, where: str) -> Any:
    """Return a JSON value as what an annotation asks for.

    Parameters
    ----------
    value : object
        As `json.loads` gives it.
    hint : annotation
        A scalar, a union, ``tuple[X, Y]``, ``tuple[X, ...]``, ``dict[str | int, X]``
        or a dataclass of those. Fields of a dataclass that are absent take their
        defaults; those that it does not know are logged and ignored.
    where : str
        What the value is, for the error.

    Raises
    ------
    ValueError
        In one sentence that names the value.
    """
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _one_of(value, get_args(hint), where)
    if origin is tuple:
        return _tuple(value, get_args(hint), where)
    if origin is dict or hint is dict:
        return _dict(value, get_args(hint) or (str, object), where)
    if is_dataclass(hint):
        return _dataclass(value, hint, where)
    if hint is object or hint is Any:
        return value
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is hint:
        return value
    raise _unlike(value, _WORDS.get(hint, str(hint)), where)


def _one_of(value: object, hints: tuple[Any, ...], where: str) -> Any:
    if value is None and types.NoneType in hints:
        return None
    *others, last = (hint for hint in hints if hint is not types.NoneType)
    for hint in others:
        with suppress(ValueError):
            return checked(value, hint, where)
    return checked(value, last, where)


def _tuple(value: object, hints: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _unlike(value, "a list", where)
    if hints[-1] is Ellipsis:
        hints = hints[:1] * len(value)
    if len(value) != len(hints):
        raise _unlike(value, f"a list of {len(hints)}", where)
    pairs = enumerate(zip(value, hints, strict=True))
    return tuple(checked(v, hint, f"{where}[{i}]") for i, (v, hint) in pairs)


def _dict(value: object, hints: tuple[Any, ...], where: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise _unlike(value, "an object", where)
    of_key, of_value = hints
    return {
        _key(key, of_key, where): checked(entry, of_value, f"{where}[{key!r}]")
        for key, entry in value.items()
    }


def _key(key: str, hint: Any, where: str) -> Any:
    if hint is not int:
        return key
    if not key.removeprefix("-").isdecimal():
        raise _unlike(key, "a whole number", f"a key of {where}")
    return int(key)


def _dataclass(value: object, kind: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise _unlike(value, "an object", where)
    hints = get_type_hints(kind)
    known = {field.name for field in fields(kind) if field.init}
    for name in sorted(set(value) - known):
        log.warning("%s.%s is unknown to this version and ignored", where, name)
    given = {
        name: checked(value[name], hints[name], f"{where}.{name}")
        for name in known & set(value)
    }
    try:
        return kind(**given)
    except TypeError:
        needed = ", ".join(sorted(known - set(given)))
        raise ValueError(f"{where} lacks something of {needed}") from None


def _unlike(value: object, wanted: str, where: str) -> ValueError:
    seen = repr(value)
    seen = seen if len(seen) <= 60 else f"{seen[:57]}..."
    return ValueError(f"{where} is {seen}; it should be {wanted}")
