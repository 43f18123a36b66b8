"""module:function of the user's, and every way in which it is not there."""

import pytest

from oneprior.core import InputError, user_function


def test_a_function_of_the_folder_in_which_one_works(tmp_path, monkeypatch):
    (tmp_path / "of_mine_here.py").write_text("number = 3\n\ndef double(x):\n    return 2 * x\n")
    (tmp_path / "fails_here.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    assert user_function("of_mine_here:double")(4) == 8
    for word, message in (
        ("of_mine_here", "write module:function"),
        ("of_mine_here:dubble", "has no dubble: no function 'dubble'; it has double"),
        ("of_mine_here:number", "is int, and no function"),
        ("fails_here:f", "fails when it is imported: ZeroDivisionError"),
        ("not_there_at_all:f", "cannot be imported"),
    ):
        with pytest.raises(InputError, match=message):
            user_function(word)
