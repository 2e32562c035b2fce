"""docs/architecture.md has every room, and what it imports of the others."""

import re
from pathlib import Path

import multipick_epp

PAGE = (Path(__file__).parents[3] / "docs" / "architecture.md").read_text()
PICKER = Path(multipick_epp.__file__).parent
ROOMS = {folder.name for folder in PICKER.iterdir() if (folder / "__init__.py").exists()} - {"proto"}
IN_WORDS = {"app", "admin", "recording"}
"""What these import is told by a few words, not by names."""

ROWS: dict[str, str] = dict(re.findall(r"^\| `(\w+)(?:/|\.py)` \|.*\| ([^|]*)\|$", PAGE, re.MULTILINE))


def test_every_room_has_a_row_and_every_file_beside_them_is_named() -> None:
    assert ROWS.keys() == {*ROOMS, "blocks"}
    beside = {file.name for file in PICKER.glob("*.py")} - {"__init__.py"}
    assert not [name for name in beside if f"`{name}`" not in PAGE]


def test_a_row_names_what_its_room_imports_and_nothing_else() -> None:
    told = re.compile(r"^ *(?:from|import) multipick_epp\.(\w+)", re.MULTILINE)
    rooms = {*ROOMS, "blocks"}
    for room in ROOMS - IN_WORDS:
        sources = (file.read_text() for file in (PICKER / room).rglob("*.py"))
        imports = {name for source in sources for name in told.findall(source)}
        assert rooms & set(re.findall(r"\w+", ROWS[room])) == (rooms & imports) - {room}, room
