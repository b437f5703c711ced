"""Validation of plain data with pydantic: the base model, and its errors in plain English."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from hrseg.errors import ConfigError
from hrseg.utils.registry import did_you_mean
from hrseg.utils.text import one_line

Key = tuple[str | int, ...]

_WORDS: Mapping[Any, tuple[str, str]] = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("text", "texts"),
    bool: ("true or false", "true or false"),
    NoneType: ("null", "null"),
}
_COUNTS = ("no", "one", "two", "three", "four")


class Checked(BaseModel):
    """Model that refuses unknown keys, NaN, infinity, and true or false for a number.

    Its ValidationError has one line: `loc` is the key, `msg` the message after the key.
    """

    model_config = ConfigDict(
        extra="forbid",
        validate_assignment=True,
        coerce_numbers_to_str=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        defer_build=True,  # most commands use few of the models
    )

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, data: Any, handler: Any) -> Self:
        values = data if isinstance(data, dict) else {}
        for name, field in cls.model_fields.items():
            kinds = {field.annotation, *get_args(field.annotation)}
            if isinstance(values.get(name), bool) and not {bool, Any} & kinds:
                hint = ' Fix: put the word in quotes, e.g. "yes".' if str in kinds else ""
                raise wrong_value(values[name], f"{_expected(field)}.{hint}", name)
        try:
            checked: Self = handler(data)
        except ValidationError as error:
            line = min(error.errors(include_url=False), key=_importance)
            if line["loc"]:
                raise _explained(line, cls, values) from None
            raise
        return checked


class Arguments(Checked):
    """Checked arguments of a Python call; the key in a ConfigError begins with `prefix`."""

    prefix: ClassVar[str]

    def __init__(self, **values: Any) -> None:
        """Check the values; any list becomes a tuple."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            line = error.errors(include_url=False)[0]
            key = one_line(key_text(line["loc"]))
            raise ConfigError(f"{self.prefix}{key}{line['msg']}") from error


def option(description: str, default: Any = ..., **more: Any) -> Any:
    """Return a pydantic field with description, default, limits (ge, le, gt, lt) and examples."""
    if callable(default):
        return Field(default_factory=default, description=description, **more)
    return Field(default, description=description, **more)


def expected(values: str) -> PydanticCustomError:
    """Return the error that a validator raises, with the expected values."""
    return PydanticCustomError("expected", "{text}", {"text": f"Expected: {values}"})


def wrong_value(value: Any, values: str, *key: str | int) -> ValidationError:
    """Return the error of a model with a value, the expected values and the key."""
    return _error(f" is {shown(value)}.\nExpected: {values}", key)


def named_model(value: Any, models: Mapping[str, type[BaseModel]]) -> BaseModel:
    """Return a section whose `name` selects its model. A bare string is a `name`.

    Raises:
        ValidationError: an unknown name, with the nearest one, or an invalid option.
        PydanticCustomError: the value has no name.
    """
    if isinstance(value, BaseModel):
        return value
    section = value if isinstance(value, dict) else {"name": value}
    name = section.get("name")
    if not isinstance(name, str):
        raise expected(f"a name, one of: {', '.join(models)}.")
    if name not in models:
        key = ("name",) if isinstance(value, dict) else ()
        raise wrong_value(name, f"a known name{did_you_mean(name, models)}", *key)
    return models[name].model_validate(section)


def shown(value: Any) -> str:
    """Return an invalid value for a message: shortened, on one line, text in quotes."""
    text = one_line(repr(value) if isinstance(value, str) else _as_yaml(value))
    return text if len(text) <= 100 else f"{text[:90]} ..."


def _error(message: str, key: Key) -> ValidationError:
    error = PydanticCustomError("explained", "{text}", {"text": message})
    line = InitErrorDetails(type=error, loc=key, input=None)
    return ValidationError.from_exception_data("", [line])


def _importance(line: ErrorDetails) -> int:
    """Return a sort key: unknown keys first, missing keys last."""
    order = {"extra_forbidden": 0, "invalid_key": 0, "missing": 2}
    return 1 if _in_list(line) else order.get(line["type"], 1)


def _in_list(line: ErrorDetails) -> bool:
    return bool(line["loc"]) and isinstance(line["loc"][-1], int)


def _explained(
    line: ErrorDetails, model: type[BaseModel], values: Mapping[str, Any]
) -> ValidationError:
    name = str(line["loc"][0])
    field, value = model.model_fields.get(name), values.get(name, line["input"])
    if line["type"] == "explained":  # by a section of this section
        return _error(line["msg"], line["loc"])
    if line["type"] == "expected":
        return _error(f" is {shown(line['input'])}.\n{line['msg']}", line["loc"])
    if field is None:
        hint = did_you_mean(name, model.model_fields)
        short = hint if len(hint) < 600 else hint.partition("\n")[0]
        return _error(f": unknown key{short}", (name,))
    if line["type"] == "missing" and not _in_list(line):
        return _error(f" is required.\nExpected: {_expected(field)}.", (name,))
    choices = _choices(field.annotation) if isinstance(value, str) else ()
    hint = did_you_mean(value, choices).partition("\n")[0][1:] if choices else ""
    return wrong_value(value, f"{_expected(field)}.{hint}", name)


def _expected(field: FieldInfo) -> str:
    """Return the expected values of a field, with an example and its description."""
    kind = _kind(field.annotation, _limits(field.metadata))
    examples = [*(field.examples or []), field.default]
    example = next((e for e in examples if isinstance(e, int | float | tuple | dict) and e), None)
    shows = example is not None and not isinstance(example, bool) and field.annotation is not Any
    meaning = f" ({field.description})" if field.description else ""
    return f"{kind}{f', e.g. {_as_yaml(example)}' if shows else ''}{meaning}"


def _as_yaml(value: Any) -> str:
    """Return a value as YAML on one line: JSON without quotes."""
    return json.dumps(value, default=str, skipkeys=True, ensure_ascii=False).replace('"', "")


def key_text(key: Key) -> str:
    """Return a key in the notation of the command line, e.g. `losses[0].weight`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)
    return "".join(parts).removeprefix(".")


def _choices(kind: Any) -> tuple[str, ...]:
    if get_origin(kind) is Literal:
        return get_args(kind)
    return tuple(choice for part in get_args(kind) for choice in _choices(part))


def _limits(metadata: list[Any] | tuple[Any, ...]) -> str:
    """Return the limits of a number in words, e.g. " from 1 to 10"."""
    limits: dict[str, Any] = {}
    for item in metadata:
        for limit in item.metadata if isinstance(item, FieldInfo) else [item]:
            names = ("ge", "gt", "le", "lt", "min_length")
            limits |= {name: getattr(limit, name) for name in names if hasattr(limit, name)}
    if "min_length" in limits:
        return f", at least {_COUNTS[limits['min_length']]}"
    low, high = limits.get("ge", limits.get("gt")), limits.get("le", limits.get("lt"))
    above = "above" if "gt" in limits else "from"
    if high is not None:
        return f" {above} {low} {'to' if 'le' in limits else 'to below'} {high}"
    return "" if low is None else f" {above} {low}{'' if 'gt' in limits else ' up'}"


def _kind(kind: Any, limits: str = "", plural: bool = False) -> str:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _kind(parts[0], _limits(parts[1:]) or limits, plural)
    if origin in (Union, UnionType):
        return " or ".join(_kind(part, "" if part is NoneType else limits) for part in parts)
    if origin is Literal:
        return ", ".join(map(str, parts[:-1])) + f"{' or ' * (len(parts) > 1)}{parts[-1]}"
    if origin is tuple and parts and parts[-1] is not Ellipsis:
        words = f"{_COUNTS[len(parts)]} {_kind(parts[0], limits, plural=True)}"
        return f"lists of {words}" if plural else words
    if origin in (list, tuple):
        if not parts:
            return "[]"
        of_items, of_list = ("", limits) if "," in limits else (limits, "")
        return f"a list of {_kind(parts[0], of_items, plural=True)}{of_list}"
    if origin is dict:
        return f"pairs of {_kind(parts[1], plural=True)}" if parts[0] is int else "key: value pairs"
    if kind in _WORDS:
        return f"{_WORDS[kind][plural]}{limits}"
    return "names" if plural else "'key: value' pairs"


def check_different(class_names: Iterable[str], key: str = "class_names") -> None:
    """Raise ConfigError if two class names are equal; `key` is for the message."""
    if duplicates := [name for name, count in Counter(class_names).items() if count > 1]:
        raise ConfigError(
            f"{key} has {one_line(duplicates[0])!r} twice.\n"
            "Expected: a different name for each class. Fix: rename one, or merge the ids (id_map)."
        )
