import subprocess
import sys
from dataclasses import dataclass

import pytest

from cli import main as cli_main


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def mobj(monkeypatch, capsys):
    """Run a command in this process; return its exit code and what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["mobj", *map(str, arguments)])
        capsys.readouterr()
        code = cli_main._run()
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def start_mobj():
    """Start a command as a process of its own, to be killed."""
    processes = []

    def start(*arguments):
        # Whoever runs the tests in the background makes children ignore Ctrl-C: listen to it again.
        code = (
            "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
            "from cli.main import main; main()"
        )
        command = [sys.executable, "-c", code, *map(str, arguments)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()
