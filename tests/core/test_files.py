"""A file is there whole or not at all."""

import pytest

from oneprior.core import replacing


@pytest.mark.parametrize("durable", [False, True])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, durable):
    path = tmp_path / "file"
    path.write_text("old")

    def half():
        with replacing(path, durable=durable) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with replacing(path, durable=durable) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
