import subprocess
import sys

HEAVY = ("torch", "scipy", "h5py", "matplotlib", "jinja2", "PIL", "sklearn")


def test_importing_metrics_loads_nothing_heavy():
    code = f"import sys, metrics; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
