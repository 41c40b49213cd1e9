"""Configurations are frozen dataclasses; this file turns them into JSON and back, and checks them.

A configuration class validates itself in `__post_init__` with `require`. `to_dict` and `from_dict`
are inverses; a key that the class does not have is an error, never ignored.
"""

import dataclasses
import hashlib
import json
import types
import typing
from typing import Any, TypeVar

from utgrec.errors import BadConfig

T = TypeVar("T")


def require(condition: bool, message: str) -> None:
    """Raise BadConfig with `message` unless `condition` holds."""
    if not condition:
        raise BadConfig(message)


def to_dict(config: Any) -> dict[str, Any]:
    """A nested dictionary of JSON values, one key per field."""
    return dict(_plain(config))


def from_dict(cls: type[T], values: dict[str, Any]) -> T:
    """Build a configuration (and those nested in it) from what `to_dict` gave.

    Raises:
        BadConfig: an unknown key, a missing one, or a value outside its range.
    """
    hints = typing.get_type_hints(cls)
    known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    require(
        not unknown,
        f"{cls.__name__} has no setting {', '.join(unknown)}; it has {', '.join(sorted(known))}",
    )
    missing = [
        field.name
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]
        if field.default is field.default_factory is dataclasses.MISSING
        and field.name not in values
    ]
    require(not missing, f"{cls.__name__} needs {', '.join(missing)}, which is not given")
    arguments = {name: _typed(hints[name], value) for name, value in values.items()}
    try:
        return cls(**arguments)
    except TypeError as error:
        raise BadConfig(f"{cls.__name__}: {error}") from error


def require_types(config: Any) -> None:
    """Refuse values whose type is not the field's: a file can hold anything.

    A whole number is fine where a float is asked; true and false are no numbers.
    """
    hints = typing.get_type_hints(type(config))
    require_value_types(type(config), {name: getattr(config, name) for name in hints})


def require_value_types(cls: type, values: dict[str, Any]) -> None:
    """The same for values from a file, before a configuration is made of them; a list is a tuple.

    Names that the class does not have are left to `from_dict`.
    """
    hints = typing.get_type_hints(cls)
    for name, given in values.items():
        hint = hints.get(name, Any)
        if dataclasses.is_dataclass(hint) and isinstance(given, dict):
            require_value_types(typing.cast(type, hint), given)
            continue
        value = tuple(given) if isinstance(given, list) else given
        require(_fits(value, hint), f"{cls.__name__}: {name} must be {_words(hint)}, got {given!r}")


def fingerprint(value: Any) -> str:
    """SHA-256 (hex) of a JSON value; the same for the same content whatever the key order."""
    text = json.dumps(_plain(value), sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value


def _typed(hint: Any, value: Any) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        return None if value is None else _typed(_chosen(options, value), value)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_dict(typing.cast(type, hint), value)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_typed(typing.get_args(hint)[0], entry) for entry in value)
    return value


def _chosen(options: list[Any], value: Any) -> Any:
    """Of several configuration classes the one that has all the settings given."""
    if len(options) == 1 or not isinstance(value, dict):
        return options[0]
    fitting = [
        option
        for option in options
        if dataclasses.is_dataclass(option)
        and set(value) <= {field.name for field in dataclasses.fields(option)}
    ]
    names = " or ".join(option.__name__ for option in options)
    require(
        len(fitting) == 1,
        f"settings {', '.join(sorted(value))} must be those of either {names}, without the others",
    )
    return fitting[0]


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(entry, arguments[0]) for entry in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            isinstance(key, str) and _fits(entry, arguments[1]) for key, entry in value.items()
        )
    if origin is typing.Literal:
        return value in arguments
    if hint in (int, float):
        allowed = (int,) if hint is int else (int, float)
        return isinstance(value, allowed) and not isinstance(value, bool)
    return isinstance(value, hint)


def _words(hint: Any) -> str:
    """A type as people say it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(option) for option in arguments if option is not type(None))
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is tuple:
        return f"a list, each entry {_words(arguments[0])}"
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    return "a table" if origin is dict else names.get(hint, f"a {getattr(hint, '__name__', hint)}")
