"""Named sections of the config: their pydantic models, also from signatures of plugins."""

import inspect
from collections.abc import Callable, Container
from copy import copy
from dataclasses import dataclass
from typing import Any, Literal, get_type_hints

from pydantic import (
    BaseModel,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    TypeAdapter,
    create_model,
)
from pydantic.errors import PydanticSchemaGenerationError
from pydantic_core import CoreSchema, core_schema

from hrseg.utils.validation import named_model

# Models by section and name, filled by `schema.py`.
PARTS: dict[str, dict[str, type[BaseModel]]] = {}


@dataclass(frozen=True)
class Part:
    """Annotation of a section whose `name` selects its model. A bare string is a `name`."""

    section: str

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return a validator that uses the model of the name."""

        def build(value: Any) -> BaseModel:
            return named_model(value, PARTS[self.section])

        return core_schema.no_info_plain_validator_function(build)

    def __get_pydantic_json_schema__(
        self, _: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the JSON Schema: a union discriminated by `name`, or the bare name."""
        names: dict[type[BaseModel], list[str]] = {}
        for name, model in PARTS[self.section].items():
            names.setdefault(model, []).append(name)
        union = []
        for model, same in names.items():
            kind: Any = Literal[tuple(same)]
            part = create_model(model.__name__, __base__=model, name=(kind, ...))
            part.__doc__ = model.__doc__
            union.append(handler(part.__pydantic_core_schema__))
        named = {"oneOf": union, "discriminator": {"propertyName": "name"}}
        return {"anyOf": [{"enum": list(PARTS[self.section])}, named]}


def model_from_signature(
    base: type[BaseModel], function: Callable[..., Any], skip: Container[str] = ()
) -> type[BaseModel]:
    """Return the model of a section whose options are the parameters of a function or class.

    Args:
        base: base model of the section, e.g. `LossConfig`.
        function: function or class. Its annotations and defaults also apply to the fields of
            `base`. Types unknown to pydantic accept any value.
        skip: parameters that hrseg passes itself, e.g. the optimizer of a schedule.
    """
    constructor = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
    hints = get_type_hints(constructor, include_extras=True)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name in skip or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        if name in base.model_fields:
            field = copy(base.model_fields[name])
            if default is not ...:
                field.default = default
            fields[name] = (field.annotation, field)
        else:
            fields[name] = (_checkable(hints.get(name, Any)), default)
    model: type[BaseModel] = create_model(function.__name__, __base__=base, **fields)
    model.__doc__ = (inspect.getdoc(function) or "").partition("\n")[0]
    return model


def _checkable(annotation: Any) -> Any:
    try:
        TypeAdapter(annotation)
    except PydanticSchemaGenerationError:
        return Any
    return annotation
