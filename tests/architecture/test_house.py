"""The house stands: floors, start-up time, no prints, no pickles, every public name documented, short files."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import oneprior

SOURCE = Path(oneprior.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))


def test_imports_go_down_only():
    from importlinter.cli import lint_imports

    root = SOURCE.parent.parent
    if not (root / "pyproject.toml").exists():
        pytest.skip("installed without its pyproject.toml")
    assert lint_imports(config_filename=str(root / "pyproject.toml"), no_cache=True) == 0


def _best_of(command: list[str], times: int = 3) -> float:
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def test_the_package_and_the_help_load_no_torch():
    code = "import sys, oneprior, oneprior.apps.main, oneprior.models, oneprior.training; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "False"


def test_help_answers_at_once():
    """0.5 s is the promise on an idle machine; a bare interpreter's own start is the yardstick on a busy one."""
    bare = _best_of([sys.executable, "-c", "import json, argparse, dataclasses, typing"])
    assert _best_of([sys.executable, "-m", "oneprior", "--help"]) < max(0.5, 8 * bare)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_module_is_documented_quiet_and_short(path):
    text = path.read_text()
    tree = ast.parse(text)
    if text.strip():
        assert ast.get_docstring(tree), "a module begins with what it is"
    assert len(text.splitlines()) <= 400, "a file past 400 lines is two ideas"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            tensors_only = any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)
            assert called != "torch.load" or tensors_only, "a checkpoint is read for its tensors, and never run"
            assert called not in {
                "torch.save",
                "pickle.load",
                "pickle.loads",
                "np.random.seed",
                "torch.manual_seed",
            }
            if called == "print":
                assert "apps" in path.parts, "the library never prints"
            assert not any(k.arg == "allow_pickle" and ast.unparse(k.value) == "True" for k in node.keywords)


def _public():
    for module in pkgutil.walk_packages([str(SOURCE)], "oneprior."):
        if module.name.endswith("__main__"):
            continue
        loaded = importlib.import_module(module.name)
        for name, value in vars(loaded).items():
            if name.startswith("_") or getattr(value, "__module__", None) != module.name:
                continue
            if inspect.isclass(value) or inspect.isfunction(value):
                yield f"{module.name}.{name}", value


def test_every_public_name_is_documented():
    undocumented = [name for name, value in _public() if not (value.__doc__ or "").strip()]
    assert not undocumented


def test_no_drawer_for_everything():
    assert not [p for p in FILES if p.stem in {"utils", "helpers", "misc", "common"}]
