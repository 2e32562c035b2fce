"""docs/configuration.md shows every field of the picker's file, with the default where there is one."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, get_args

import msgspec
import yaml
from msgspec import inspect
from multipick_epp.config import Config

PAGE = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text()
EXAMPLE = PAGE.split("```yaml\n")[1].split("```")[0]

OTHER_THAN_THE_DEFAULT = {"state"}
"""Shown so, since most want it so; the page has the default beside it."""
OF_MANY = {65_535, 86_400, 1 << 40}
"""The bounds of ports, seconds and bytes, which nobody meets."""


def test_the_page_shows_every_field_and_no_other() -> None:
    shown = yaml.safe_load(EXAMPLE)
    assert msgspec.convert(shown, Config)
    missing = [
        ".".join(path)
        for path, _ in fields(Config)
        if at(shown, path) is msgspec.UNSET and f"`{path[-1]}`" not in PAGE and f"`{path[-1]}: " not in PAGE
    ]
    assert not missing


def test_what_has_a_default_is_shown_with_it() -> None:
    shown = yaml.safe_load(EXAMPLE)
    other = {
        ".".join(path): (at(shown, path), field.default)
        for path, field in fields(Config)
        if field.default not in (msgspec.NODEFAULT, None, (), "")
        and not isinstance(field.default, msgspec.Struct)
        and at(shown, path) not in (msgspec.UNSET, {"off": False}.get(str(field.default), field.default))
    }
    assert other.keys() == OTHER_THAN_THE_DEFAULT


def test_bounds_stand_beside_what_has_them() -> None:
    missing = []
    for path, _ in fields(Config):
        kind = checked(path)
        most = kind.max_length if isinstance(kind, inspect.VarTupleType) else getattr(kind, "le", None)
        line = re.search(rf"^ *{path[-1]}: .*", EXAMPLE, re.MULTILINE)
        if most is not None and most not in OF_MANY and (line is None or not re.search(rf"\b{most:.0f}\b", line[0])):
            missing.append(".".join(path))
    assert not missing


def checked(path: tuple[str, ...]) -> inspect.Type:
    """What msgspec checks there."""
    found: inspect.Type = inspect.type_info(Config)
    for name in path:
        found = found.item_type if isinstance(found, inspect.VarTupleType) else found
        assert isinstance(found, inspect.StructType)
        found = next(field.type for field in found.fields if field.name == name)
        if isinstance(found, inspect.UnionType):
            found = next(one for one in found.types if not isinstance(one, inspect.NoneType))
    return found


def fields(kind: type[msgspec.Struct], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each with its path, those of sections and of lists of sections, too."""
    for field in msgspec.structs.fields(kind):
        path = (*above, field.name)
        yield path, field
        for section in sections(field.type):
            yield from fields(section, path)


def sections(kind: Any) -> Iterator[type[msgspec.Struct]]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
    elif isinstance(kind, UnionType) or get_args(kind):
        for part in get_args(kind):
            yield from sections(part)


def at(shown: Any, path: tuple[str, ...]) -> Any:
    """What stands there; of a list, in its first element."""
    for name in path:
        shown = shown[0] if isinstance(shown, list) else shown
        if not isinstance(shown, dict) or name not in shown:
            return msgspec.UNSET
        shown = shown[name]
    return shown
