"""Files that are not what was published are refused by name; the command makes a checkpoint of those that are."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from cli import main as cli_main
from multiobj_data.errors import DataError, UsageError
from reference_models.checkpoints import load_checkpoint
from reference_models.released import import_weights, released_formats

State = dict[str, Tensor]
SMALL_V2 = {"slot_size": 8, "width": 8, "lstm_size": 32}
SHAPE = (64, 64, 3)


def change(name: str, value: Tensor | None) -> Callable[[State], None]:
    def apply(state: State) -> None:
        state.pop(name, None)
        if value is not None:
            state[name] = value

    return apply


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (change("seg_head.1.bias", None), r"missing: seg_head\.1\.bias\."),
        (change("klm.weight", torch.zeros(2)), r"unknown: klm\.weight\."),
        (
            change("z_head.1.weight", torch.zeros(4, 5)),
            r"of another shape: z_head\.1\.weight 4x5 instead of 16x16",
        ),
        (change("att_process.log_sigma", torch.zeros(2)), r"log_sigma 2 instead of a number"),
    ],
)
def test_other_architecture_is_named(
    published: SimpleNamespace, spoil: Callable[[State], None], complaint: str, tmp_path: Path
) -> None:
    state = published.genesis_v2(8)
    spoil(state)
    with pytest.raises(DataError, match=complaint):
        import_weights("genesis-v2", published.saved(tmp_path / "x.pt", state), SHAPE, SMALL_V2)


def test_many_names_are_cut_short(published: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"missing: \S+, \S+, \S+ and \d+ more; unknown: \S+, \S+, \S+ and \d+ more"
    ):
        import_weights("genesis-v2", published.saved(tmp_path / "sri.pt", published.sri(8)), SHAPE, SMALL_V2)


def test_other_image_size_is_refused(published: SimpleNamespace, tmp_path: Path, small_v2: Path) -> None:
    with pytest.raises(DataError, match=r"encoder\.mlp"):
        import_weights("genesis-v2", small_v2, (96, 96, 3), SMALL_V2)
    state = published.genesis(4, grid=4)
    with pytest.raises(DataError, match=r"p_x_nn\.0\.conv\.weight 64x16x4x4 instead of 64x16x4x5"):
        import_weights("genesis", published.saved(tmp_path / "g.pt", state), (16, 20, 3), {"width": 4})
    state["att_process.core.q_z_nn.5.conv.weight"] = torch.zeros(512, 8, 4, 5)
    with pytest.raises(
        DataError, match=r"of another shape: att_process\.core\.q_z_nn\.5\.conv\.weight 512x8x4x5\."
    ):
        import_weights("genesis", published.saved(tmp_path / "g.pt", state), (16, 16, 3), {"width": 4})


def test_settings_without_published_weights_are_refused(small_v2: Path) -> None:
    with pytest.raises(UsageError, match="is not the published one"):
        import_weights("genesis-v2", small_v2, SHAPE, {**SMALL_V2, "grouping": "slot-attention"})


def test_files_that_are_none(tmp_path: Path, small_v2: Path) -> None:
    for content, complaint in (
        ({"model_state_dict": {}}, "holds no state dict"),
        ([1, 2], "holds no state dict"),
        ({"model_state_dict": {"a": 1}}, "a is none"),
    ):
        torch.save(content, tmp_path / "x.pt")
        with pytest.raises(DataError, match=complaint):
            import_weights("genesis-v2", tmp_path / "x.pt", SHAPE)
    torch.save({"model_state_dict": Path("/")}, tmp_path / "x.pt")
    with pytest.raises(DataError, match="could run code"):
        import_weights("genesis-v2", tmp_path / "x.pt", SHAPE)
    (tmp_path / "x.pt").write_bytes(small_v2.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"x\.pt: is no file"):
        import_weights("genesis-v2", tmp_path / "x.pt", SHAPE)
    with pytest.raises(DataError, match="no such file"):
        import_weights("genesis-v2", tmp_path / "none.pt", SHAPE)
    with pytest.raises(UsageError, match="no released weights are known of 'air'"):
        import_weights("air", small_v2, SHAPE)


def test_every_format_says_where_it_is_from() -> None:
    assert all("authors' code" in known.about for known in released_formats().values())


def test_command_makes_a_checkpoint_that_evaluate_opens(
    small_v2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def mobj(*arguments: Any) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["mobj", *map(str, arguments)])
        code = cli_main._run()
        read = capsys.readouterr()
        return code, read.out + read.err

    out, data = tmp_path / "ours.pt", tmp_path / "data"
    settings = [
        part for pair in {**SMALL_V2, "slots": 3}.items() for part in ("--set", f"{pair[0]}={pair[1]}")
    ]
    command = ("import-weights", "genesis-v2", small_v2, "--out", out, *settings)
    code, said = mobj(*command)
    assert (code, "mobj evaluate" in said) == (0, True)
    assert load_checkpoint(out).config["slots"] == 3
    code, said = mobj(*command)
    assert (code, "is there already" in said) == (2, True)
    code, said = mobj(
        "import-weights", "genesis-v2", small_v2, "--out", tmp_path / "x.pt", "--image-size", "64x"
    )
    assert (code, "expected pixels such as 64" in said) == (2, True)
    mobj("generate", "multi-dsprites", "--train", 0, "--val", 0, "--test", 4, "--out", data, "--no-sheet")
    code, said = mobj("evaluate", out, "--data", data, "--device", "cpu", "--json")
    assert code == 0, said
    code, said = mobj("evaluate", out)
    assert (code, "give --data" in said) == (3, True)
