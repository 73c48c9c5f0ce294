"""Holds a server's process to the promise that it runs nothing of the users'.

With ``MULTIHOST_GUARD=FILE`` in its environment a server refuses, whoever asks
for it: to unpickle anything, to import a module that is neither Python's own
nor ours nor a dependency's, to run or load code that does not come with one of
those. Each attempt fails where it is made and is written to FILE. The tests
start every server so. An audit hook can't be taken back, which is why only
processes that are nothing but a server install it; for others tests have
``multihost.testing.guarding``.
"""

import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

GUARD_VARIABLE = "MULTIHOST_GUARD"

DEPENDENCIES: Final = frozenset(
    {
        *("_cffi_backend", "anyio", "apsw", "blake3", "cffi", "click", "cryptography", "h11"),
        *("httptools", "idna", "markdown_it", "mdurl", "msgspec", "psutil", "pygments", "rich"),
        *("sniffio", "starlette", "typing_extensions", "uvicorn", "uvloop", "websockets"),
    }
)
"""Top-level modules that the server's declared dependencies consist of."""
PROBED: Final = frozenset(
    {
        "_winapi",
        "_distutils_hack",
        "a2wsgi",
        "bcrypt",
        "colorama",
        "multipart",
        "org",
        "python_multipart",
        "sitecustomize",
        "trio",
        "usercustomize",
        "watchfiles",
    }
)
"""What those look for without needing it."""
_OWN: Final = "multihost"
_IMPORTERS: Final = (
    "<frozen importlib._bootstrap>",
    "<frozen importlib._bootstrap_external>",
    "<frozen zipimport>",
)
"""Files, so to say, of the import system."""
_KNOWN: Final = DEPENDENCIES | {_OWN}
_PICKLES: Final = ("load", "loads", "Unpickler", "_load", "_loads", "_Unpickler")


class GuardError(ImportError):
    """The server was about to do what it never does."""


def install_if_asked() -> None:
    """Guard this process from now on, if its environment says so."""
    path = os.environ.get(GUARD_VARIABLE)
    if path:
        Guard(Path(path)).install()


class Guard:
    """What is refused, and where it is noted."""

    def __init__(self, path: Path) -> None:
        """Note attempts in the file at ``path``."""
        self._path = path
        self._is_noting = False

    def install(self) -> None:
        """Begin; there is no end but the process's."""
        for name in ("pickle", "_pickle"):
            module = sys.modules.get(name)
            for attribute in _PICKLES:
                if hasattr(module, attribute):
                    setattr(module, attribute, self._refusal(f"{name}.{attribute}"))
        self._note(f"on {os.getpid()} {' '.join(sys.argv)}")
        sys.addaudithook(self._look)

    # within ------------------------------------------------------------------------

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        look = _EVENTS.get(event)
        if look is not None and not self._is_noting:
            frame = sys._getframe(1)
            trouble = look(arguments, frame)
            if trouble and self._applies(frame):
                self._refuse(f"{event}: {trouble}")

    def _applies(self, _: FrameType | None) -> bool:
        """Whether it is a server that does this: here, whoever does."""
        return True

    def _refusal(self, what: str) -> Callable[..., NoReturn]:
        def refuse(*_: object, **__: object) -> NoReturn:
            self._refuse(f"{what} was called")

        return refuse

    def _refuse(self, trouble: str) -> NoReturn:
        stack = "".join(traceback.format_stack(sys._getframe(2), 12))
        self._note(f"refused in {os.getpid()}: {trouble}\n{stack}")
        raise GuardError(f"a server never does this: {trouble} (noted in {self._path})")

    def _note(self, text: str) -> None:
        self._is_noting = True
        try:
            with self._path.open("a") as notes:
                notes.write(text + "\n")
        finally:
            self._is_noting = False


def _unpickling(arguments: tuple[Any, ...], _: FrameType) -> str:
    return "a pickle looks up {}.{}".format(*arguments)


def _importing(arguments: tuple[Any, ...], _: FrameType) -> str:
    name = str(arguments[0])
    return "" if _is_known(name) or name.partition(".")[0] in PROBED else f"module {name!r}"


def _running(_: tuple[Any, ...], frame: FrameType) -> str:
    """Code is run by the import system, and made up by libraries (named tuples and the like)."""
    if frame.f_code.co_filename in _IMPORTERS:
        return ""
    name = str(frame.f_globals.get("__name__"))
    is_ours = name.partition(".")[0] == _OWN
    return "" if _is_known(name) and not is_ours else f"by {name}"


def _loading(_: tuple[Any, ...], frame: FrameType) -> str:
    name = frame.f_code.co_filename
    return "" if name in _IMPORTERS else f"by {name}"


def _is_known(module: str) -> bool:
    top = module.partition(".")[0]
    return top in _KNOWN or top in sys.stdlib_module_names


_EVENTS: Final[Mapping[str, Callable[[tuple[Any, ...], FrameType], str]]] = {
    "pickle.find_class": _unpickling,
    "import": _importing,
    "exec": _running,
    "compile": _running,
    "code.__new__": _running,
    "marshal.load": _loading,
    "marshal.loads": _loading,
}
