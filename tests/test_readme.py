"""What README shows runs."""

import re
import shlex
from pathlib import Path

import click
import pytest

from cli.main import mobj
from multiobj_data.generation.plan import Plan
from multiobj_data.generation.running import generate

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_python_lines_run(tmp_path, monkeypatch):
    generate(
        Plan.create("multi-mnist", {"digits": "bundled"}, splits={"test": 130}), tmp_path / "data" / "air"
    )
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(blocks("python")[0], names)
    assert next(iter(names["loader"]))["image"].shape == (64, 50, 50, 1)


def commands():
    for block in blocks("bash"):
        for line in block.splitlines():
            for part in re.split(r"&&|#", line)[: line.count("&&") + 1]:
                if part.strip().startswith("mobj "):
                    yield part.strip()


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_the_commands_have_the_options_shown(line):
    name, *arguments = shlex.split(line)[1:]
    context = click.Context(mobj)
    command = mobj.get_command(context, name)
    while isinstance(command, click.Group):
        context = click.Context(command)
        name, *arguments = arguments
        command = command.get_command(context, name)
    command.make_context(name, arguments)  # parses; does not run
