"""A picker where the system allows few open files unless one asks."""

import resource
from pathlib import Path

import pytest
from stacks.process import Picker


def allowed(pid: int) -> list[str]:
    """Open files, by the soft and the hard limit."""
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line.split()[3:5] for line in limits if line.startswith("Max open files"))


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="reads /proc")
async def test_a_picker_asks_for_as_many_as_it_may_have(tmp_path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    picker = Picker("picker", tmp_path, {"pool": {"name": "demo"}, "events": {"enabled": False}})
    few = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, {hard})); "
    picker.command[2] = few + picker.command[2]
    try:
        await picker.serve()
        assert allowed(picker.pid) == [str(hard)] * 2
    finally:
        await picker.stop()
        picker.let_go()
