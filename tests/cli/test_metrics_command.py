"""`mobj metrics explain` on built-in examples and on files."""

import json
import subprocess
import sys

import numpy as np
import pytest

from cli.metrics import SUBCOMMANDS
from metrics.segmentation.explain import CASES


@pytest.fixture
def files(tmp_path):
    true, predicted = np.zeros((4, 6), np.uint8), np.zeros((4, 6), np.uint8)
    true[1:3, 1:3] = 1
    predicted[:, :4] = 2
    np.save(tmp_path / "true.npy", true)
    np.savez(tmp_path / "predicted.npz", predicted)
    return "--true", tmp_path / "true.npy", "--predicted", tmp_path / "predicted.npz"


def test_all_cases_under_all_conventions(mobj):
    result = mobj("metrics", "explain")
    assert result.code == 0
    for name in CASES:
        assert any(line.startswith(f"{name} ") for line in result.out.splitlines())
    (row,) = (line.split() for line in result.out.splitlines() if line.startswith("empty-split"))
    assert row[1:9] == ["NaN", "NaN", "1", "1", "1", "0", "0", "1"]
    assert "EfficientMORL, lib/metrics.py" in result.out  # where each convention is from
    document = json.loads(mobj("metrics", "explain", "--json").out)
    assert document["schema_version"] == 1
    assert document["cases"]["empty-split"]["metrics"]["ari_fg"]["values"]["mobj"] is None


def test_a_case_with_its_reasons(mobj):
    result = mobj("metrics", "explain", "--case", "one-exact")
    assert "deepmind: NaN, because" in result.out
    assert "one object, found exactly" in result.out
    assert mobj("metrics", "explain", "--case", "ordinary").out.endswith("All conventions agree.\n")
    listed = mobj("metrics", "explain", "--case", "list").out
    assert all(name in listed for name in CASES)


def test_files_of_ones_own(mobj, files):
    result = mobj("metrics", "explain", *files)
    assert result.code == 0
    assert "1 object of 4 pixels in all; the prediction uses 2 slots." in result.out
    values = json.loads(mobj("metrics", "explain", *files, "--json").out)["metrics"]
    assert values["msc_fg"]["values"] == {"mobj": 0.25, "genesis": 0.25}
    nothing = json.loads(mobj("metrics", "explain", *files, "--background", "0,1", "--json").out)
    assert nothing["metrics"]["ari_fg"]["values"]["mobj"] is None
    assert nothing["metrics"]["ari_fg"]["values"]["savi"] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--true", "TRUE"], 2, "expected both files"),
        (["--case", "one-exact", "--true", "TRUE", "--predicted", "TRUE"], 2, "--case: expected without"),
        (["--case", "none-such"], 2, "no case 'none-such'"),
        (["--case", ""], 2, "--case: expected a text"),
        (["--index", "1"], 2, "--index and --background: expected with"),
        (
            ["--true", "TRUE", "--predicted", "TRUE", "--background", "sky"],
            2,
            "--background: expected labels such as",
        ),
        (["--true", "TRUE", "--predicted", "missing.npy"], 3, "missing.npy: there is no such file"),
        (
            ["--true", "TRUE", "--predicted", "FLOATS"],
            3,
            "soft masks go through metrics.labels_of_soft_masks",
        ),
        (
            ["--true", "TRUE", "--predicted", "SMALL"],
            3,
            r"of the size of the true ones, [1, 4, 6], got [1, 2, 6]",
        ),
        (["--true", "TRUE", "--predicted", "TRUE", "--index", "0"], 3, "leave the index out"),
    ],
)
def test_what_cannot_be_explained_is_refused(mobj, files, tmp_path, arguments, code, says):
    np.save(tmp_path / "floats.npy", np.zeros((4, 6)))
    np.save(tmp_path / "small.npy", np.zeros((2, 6), int))
    places = {"TRUE": files[1], "FLOATS": tmp_path / "floats.npy", "SMALL": tmp_path / "small.npy"}
    result = mobj("metrics", "explain", *(places.get(argument, argument) for argument in arguments))
    assert result.code == code
    assert says in result.err
    assert not result.out


def test_subcommands_are_found_by_name(mobj):
    result = mobj("metrics", "--help")
    assert all(name in result.out for name in SUBCOMMANDS)
    wrong = mobj("metrics", "explian")
    assert wrong.code == 2
    assert "Did you mean 'explain'?" in wrong.err


def test_help_loads_no_library_of_weight():
    code = (
        "import sys, cli.main\n"
        "try: cli.main.mobj.main(['metrics', 'explain', '--help'], standalone_mode=False)\n"
        "finally: print([m for m in ('torch', 'numpy', 'scipy', 'PIL', 'rich') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip().endswith("[]")
