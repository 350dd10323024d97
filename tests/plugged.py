"""The example package of tests/plugin as if it were installed, for as long as a test wants it."""

import tomllib
from pathlib import Path

PLUGIN = Path(__file__).parent / "plugin"


def write_entry_points(folder: Path) -> Path:
    """Writes what an installer makes of the package's pyproject.toml; with ``folder`` on the path it is known.

    Its modules are found anyway (pyproject.toml's pythonpath); tests/test_plugin.py installs it for good.
    """
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
    )
    lines = [
        line
        for group, points in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
