"""Words become options: mistakes are one clear line, a YAML file is a command line written down."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from oneprior.apps.command import Command, Mistake, Outcome
from oneprior.apps.command_line import flags_of, parse


@dataclass(frozen=True)
class Inner:
    """A group of options.

    Args:
        learning_rate: of Adam.
        loud: whether to shout.
    """

    learning_rate: float = 0.1
    loud: bool = False

    def __post_init__(self) -> None:
        if self.learning_rate < 0:
            raise ValueError(f"learning_rate must be >= 0, got {self.learning_rate}")


@dataclass(frozen=True, kw_only=True)
class Toy(Command):
    """A command for tests.

    Args:
        thing: what it is about.
        kind: one of two.
        operator: may be repeated.
        size: some numbers.
        window: two numbers.
    """

    thing: tyro.conf.Positional[str]
    kind: Literal["a", "b"] = "a"
    operator: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    size: tuple[int, ...] = ()
    window: tuple[float, float] | None = None
    inner: Inner = Inner()
    deep__loud: Annotated[bool, tyro.conf.arg(name="deep.loud")] = False
    deep__width: Annotated[int, tyro.conf.arg(name="deep.width")] = 1

    def execute(self) -> Outcome:
        return Outcome()


def toy(*words: str) -> Toy:
    return parse(Toy, words, "oneprior toy")


def test_options_are_the_fields_without_prefixes():
    own = {"kind", "operator", "size", "window", "learning-rate", "loud", "deep.width", "deep.loud"}
    assert set(flags_of(Toy)) == {"config", "device", "seed"} | own
    command = toy("x", "--seed", "3", "--learning-rate", "0.5", "--operator", "mask:left", "--operator", "blur:s=2")
    assert command.thing == "x"
    assert command.common.seed == 3
    assert command.inner.learning_rate == 0.5
    assert command.operator == ("mask:left", "blur:s=2")


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (["x", "--kind", "c"], ["--kind", "'a', 'b'"]),
        (["x", "--seed", "three"], ["--seed needs a whole number, got 'three'"]),
        (["x", "--seed", "2.5"], ["--seed needs a whole number, got '2.5'"]),
        (["x", "--learning-rate", "high"], ["--learning-rate needs a number, got 'high'"]),
        (["x", "--window", "3", "b"], ["--window needs 2 numbers, got '3' 'b'"]),
        (["x", "--window", "3"], ["--window", "2 numbers"]),
        (["x", "--learning_rat", "3"], ["--learning-rat", "did you mean --learning-rate?"]),
        (["x", "--learning-rate", "-1"], ["learning_rate must be >= 0"]),
        ([], ["what it is about"]),
        (["x", "y"], ["y"]),
    ],
)
def test_a_mistake_is_one_line_that_names_it(words, needed):
    with pytest.raises(Mistake) as caught:
        toy(*words)
    message = str(caught.value)
    assert "\n" not in message
    assert "│" not in message
    assert message.endswith("(see oneprior toy --help)")
    for part in needed:
        assert part in message


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return str(path)


def test_a_file_gives_every_kind_of_option(tmp_path):
    path = write(
        tmp_path, "kind: b\nseed: 5\nsize: [3, 4]\noperator: [a, b]\ninner:\n  learning_rate: 1.0e-2\n  loud: true\n"
    )
    command = toy("x", "--config", path)
    assert (command.kind, command.common.seed, command.size) == ("b", 5, (3, 4))
    assert command.operator == ("a", "b")
    assert command.inner == Inner(0.01, True)
    assert command.common.config == Path(path)


def test_a_group_of_the_file_may_be_a_prefix(tmp_path):
    path = write(tmp_path, "deep:\n  loud: false\n  width: 2\ntyped:\n  learning_rate: 0.4\nkind: null\n")
    command = toy("x", "--config", path, "--deep.loud")
    assert (command.deep__loud, command.deep__width) == (True, 2)
    assert command.inner == Inner(0.4, False)
    assert command.kind == "a"


def test_typed_options_win_over_the_file_and_lists_replace(tmp_path):
    path = write(tmp_path, "kind: b\nloud: true\noperator: [a, b]\nlearning-rate: 0.3\n")
    command = toy("x", f"--config={path}", "--operator", "c", "--no-loud", "--learning_rate=0.7")
    assert command.operator == ("c",)
    assert command.inner == Inner(0.7, False)
    assert command.kind == "b"


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("learning_rates: 3", "unknown key 'learning_rates'; did you mean learning-rate?"),
        ("- 1\n- 2", "found a list"),
        ("a: [", "is no YAML"),
        ("seed: three", "--seed"),
        ("kind: c", "--kind"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, text, needed):
    with pytest.raises(Mistake, match="(?s).*") as caught:
        toy("x", "--config", write(tmp_path, text))
    assert needed in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_empty_file(tmp_path):
    with pytest.raises(Mistake, match="No such file"):
        toy("x", "--config", str(tmp_path / "none.yaml"))
    assert toy("x", "--config", write(tmp_path, "# nothing\n")).kind == "a"


def test_help_prints_the_docstring(capsys):
    with pytest.raises(SystemExit) as stop:
        toy("--help")
    assert not stop.value.code
    said = capsys.readouterr().out
    for part in ("A command for tests", "--learning-rate", "may be repeated", "--config"):
        assert part in said
