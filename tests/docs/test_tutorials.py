"""The tutorials are executed, block by block, in order, in an empty folder."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = ("train.md", "sample.md", "restore.md", "evaluate.md", "specifications.md", "python.md")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tutorial")


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_runs(page: str, folder: Path, monkeypatch):
    """Shell blocks in a shell; the Python of a page in one namespace, as a reader would type it."""
    monkeypatch.chdir(folder)
    environment = {**os.environ, "PYTHONPATH": str(DOCS.parent / "src"), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    command = f'oneprior() {{ {shlex.quote(sys.executable)} -m oneprior "$@"; }}\nset -e\n'
    blocks, namespace = BLOCK.findall((DOCS / page).read_text()), {"__name__": "tutorial"}
    assert blocks
    for kind, text in blocks:
        if kind == "python":
            exec(compile(text, page, "exec"), namespace)
            continue
        done = subprocess.run(
            ["bash", "-c", command + text], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{page}:\n{text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
