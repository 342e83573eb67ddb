"""Modules that are read when something of them is first used, and not when they are imported."""

import sys
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    """Stands for a module until something of it is asked for, and is that module from then on.

    `importlib.util.LazyLoader` reads the module as soon as anybody imports it: an import looks at `__spec__`.
    """

    def __getattr__(self, name: str) -> Any:
        """Read the module, which has not got the name yet."""
        self.__class__ = ModuleType  # type: ignore[assignment]
        assert self.__spec__ is not None
        assert self.__spec__.loader is not None
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def read_when_used(name: str) -> None:
    """Have imports of the module, also those in others' code, cost nothing until it is used.

    One that is there already, or is not installed, stays as it is. Not for one that threads use first.
    """
    spec = None if name in sys.modules else find_spec(name)
    if spec is not None:
        module = module_from_spec(spec)
        module.__class__ = _Later
        sys.modules[name] = module
