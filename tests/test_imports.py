"""The layout's walls: which package may import which, and what stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "multiobj_data": set(),
    "metrics": {"multiobj_data"},
    "reference_models": {"multiobj_data"},
    "cli": {"multiobj_data", "metrics", "reference_models"},
}


def imported_by(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_run_one_way(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        crossing = set(imported_by(path)) & set(ALLOWED) - ALLOWED[package] - {package}
        assert not crossing, f"{path} imports {crossing}"


@pytest.mark.parametrize("package", ["multiobj_data", "metrics", "cli.main"])
def test_light_packages_load_nothing_heavy(package):
    heavy = ("torch", "scipy", "h5py", "matplotlib", "sklearn")
    code = f"import sys, {package}; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_help_imports_no_library_of_weight():
    code = (
        "import sys, cli.main\n"
        "try: cli.main.mobj.main(['generate', '--help'], standalone_mode=False)\n"
        "finally: print([m for m in ('torch', 'numpy', 'h5py', 'rich') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip().endswith("[]")
