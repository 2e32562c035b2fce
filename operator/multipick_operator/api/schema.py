"""msgspec types -> OpenAPI v3 structural schema, as a CRD wants it: inline, with defaults, without `$ref`."""

import inspect
import json
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import NODEFAULT
from msgspec import inspect as types

from multipick_operator.api.rules import RULES, Rule

Schema = dict[str, Any]

_STRING = {"min_length": "minLength", "max_length": "maxLength", "pattern": "pattern"}
_NUMBER = {"ge": "minimum", "le": "maximum"}
_ARRAY = {"min_length": "minItems", "max_length": "maxItems"}
_MAP = {"min_length": "minProperties", "max_length": "maxProperties"}


def schema_of(struct: type[msgspec.Struct]) -> Schema:
    """The structural schema of one struct and all below it."""
    return _schema(types.type_info(struct))


def validations(rules: tuple[Rule, ...]) -> list[dict[str, str | bool]]:
    """CEL rules as `x-kubernetes-validations`."""
    return [_validation(rule) for rule in rules]


def _validation(rule: Rule) -> dict[str, str | bool]:
    if not rule.of_new_ones:
        return {"rule": rule.expression, "message": rule.message}
    return {"rule": f"oldSelf.hasValue() || {rule.expression}", "message": rule.message, "optionalOldSelf": True}


def _schema(info: types.Type) -> Schema:
    match info:
        case types.Metadata():
            extra = {key: value for key, value in (info.extra_json_schema or {}).items() if key != "title"}
            return _schema(info.type) | extra
        case types.StructType():
            return _object(info)
        case types.UnionType():
            return _union(info)
        case types.EnumType():
            return {"type": "string", "enum": [member.value for member in info.cls]}
        case types.StrType():
            return {"type": "string"} | _bounds(info, _STRING)
        case types.IntType():
            wide = {} if info.le is not None and info.le < 2**31 else {"format": "int64"}
            return {"type": "integer"} | wide | _bounds(info, _NUMBER)
        case types.BoolType():
            return {"type": "boolean"}
        case types.VarTupleType():
            return {"type": "array", "items": _schema(info.item_type)} | _bounds(info, _ARRAY)
        case types.DictType(value_type=types.AnyType()):
            return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        case types.DictType():
            return {"type": "object", "additionalProperties": _schema(info.value_type)} | _bounds(info, _MAP)
        case _:
            raise TypeError(f"no structural schema for {info}")


def _object(info: types.StructType) -> Schema:
    properties = {}
    for field in info.fields:
        schema = _schema(field.type)
        default = _default(field, schema)
        if default is not None:
            schema |= {"default": default}
            if "properties" not in schema:  # `kubectl explain` shows no defaults; a record's are its fields' own
                told = json.dumps(default).strip('"')
                schema |= {"description": f"{schema.get('description', '')} Default: {told}.".strip()}
        properties[field.encode_name] = schema
    schema = {"type": "object", "description": inspect.getdoc(info.cls), "properties": properties}
    if required := [field.encode_name for field in info.fields if field.required]:
        schema["required"] = required
    if rules := RULES.get(info.cls):
        schema["x-kubernetes-validations"] = validations(rules)
    return schema


def _union(info: types.UnionType) -> Schema:
    kinds = [kind for kind in info.types if not isinstance(kind, types.NoneType)]
    if len(kinds) == 1:
        return _schema(kinds[0])
    if {type(kind) for kind in kinds} == {types.IntType, types.StrType}:
        either: Schema = {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
        for kind in kinds:  # of either, only what belongs to the value's type is checked
            either |= _bounds(kind, _STRING if isinstance(kind, types.StrType) else _NUMBER)
        return either
    raise TypeError(f"no structural schema for {info}")


def _default(field: types.Field, schema: Schema) -> Any:
    """What the API server fills in. A record is written out whole, since rules are checked against a default as it is.

    None for nothing: an empty list or map is the same as its absence, and would only clutter every object.
    """
    value = field.default if field.default_factory is NODEFAULT else field.default_factory()
    if value is NODEFAULT or value is None or value in ({}, (), ""):
        return None
    if isinstance(value, msgspec.Struct):
        return {name: one["default"] for name, one in schema["properties"].items() if "default" in one} or None
    return msgspec.to_builtins(value)


def _bounds(info: object, names: Mapping[str, str]) -> Schema:
    return {wire: value for name, wire in names.items() if (value := getattr(info, name)) is not None}
