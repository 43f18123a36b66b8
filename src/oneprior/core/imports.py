"""module:function: a function of the user's, from the folder in which one works or from what is installed."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from oneprior.core.errors import InputError


def user_function(word: str) -> Callable[..., Any]:
    """The function that module:function names.

    Raises:
        InputError: for a word of another form, a module that is not there or fails, a name that is no function.
    """
    module, colon, name = word.partition(":")
    if not colon or not name:
        raise InputError(f"{word!r} names no function: write module:function")
    if module.endswith(".py"):
        told = f"{Path(module).stem}:{name}"
        raise InputError(f"{word!r} names a file: write {told}, and PYTHONPATH for another folder than this one")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = import_module(module)
    except ImportError as error:
        raise InputError(
            f"{word}: the module {module!r} cannot be imported ({type(error).__name__}: {error}); it is looked for in "
            "this folder and among installed packages: put its folder on PYTHONPATH, or install it"
        ) from error
    except Exception as error:  # whatever the user's module raises
        raise InputError(f"{word}: the module fails when it is imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    if not hasattr(found, name):
        functions = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
        near = difflib.get_close_matches(name, functions, 2, 0.5) or functions[:5]
        raise InputError(
            f"{word}: module {module} has no {name}: no function {name!r}; it has {', '.join(near) or 'none'}"
        )
    function = getattr(found, name)
    if not callable(function):
        raise InputError(f"{word} is {type(function).__name__}, and no function")
    return function
