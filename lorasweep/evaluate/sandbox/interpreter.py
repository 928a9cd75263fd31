"""Find the files that a bare Python interpreter needs, so that the sandbox shows no others."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from lorasweep.errors import SandboxError

TIMEOUT_S = 60.0

# Imports every extension module of the standard library, then asks the dynamic linker what it
# loaded (dl_iterate_phdr). Anything else would have to repeat the linker's search rules. Tk is
# skipped, as it would bring the libraries of a whole desktop.
_LISTING = """
import ctypes, importlib, json, os, sys
folders = [folder for folder in sys.path if os.path.isdir(folder)]
for folder in folders:
    for file in os.listdir(folder):
        name = file.partition(".")[0]
        if ".so" in file and not name.startswith(("_tk", "_test", "_xx", "xx")):
            try:
                importlib.import_module(name)
            except ImportError:
                pass
class Info(ctypes.Structure):
    _fields_ = [("address", ctypes.c_void_p), ("name", ctypes.c_char_p)]
found = []
@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Info), ctypes.c_size_t, ctypes.c_void_p)
def note(info, size, data):
    found.append(os.fsdecode(info.contents.name or b""))
    return 0
ctypes.CDLL(None).dl_iterate_phdr(note, None)
print(json.dumps([folders, [os.path.abspath(name) for name in found if os.path.exists(name)]]))
"""


@dataclass(frozen=True)
class Interpreter:
    """Paths that an interpreter consists of, as it looks them up itself."""

    program: str
    folders: tuple[str, ...]  # the standard library
    packages: tuple[str, ...]  # folders within them that hold what was installed, to be hidden
    libraries: tuple[str, ...]


@functools.cache
def find_interpreter() -> Interpreter:
    """Find the base interpreter of this process, outside of any virtual environment.

    Raises:
        SandboxError: it cannot be run on its own.
    """
    # A virtual environment's python is a link; the standard library is beside its target.
    program = Path(getattr(sys, "_base_executable", "") or sys.executable).resolve()
    try:
        done = subprocess.run(
            [program, "-I", "-S", "-B", "-c", _LISTING],
            capture_output=True,
            check=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=TIMEOUT_S,
        )
        paths, libraries = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise SandboxError(
            "the sandbox for generated code: the files of the Python interpreter must be known, "
            f"and {program} does not list them ({type(error).__name__}); reinstall Python with "
            "ctypes"
        ) from error
    folders = [Path(path) for path in paths]
    folders = [
        one for one in folders if not any(one.is_relative_to(f) for f in folders if f != one)
    ]
    packages = [f / name for f in folders for name in ("site-packages", "dist-packages")]
    within = (str(program), *(f"{folder}/" for folder in folders))
    return Interpreter(
        program=str(program),
        folders=tuple(map(str, folders)),
        packages=tuple(str(folder) for folder in packages if folder.is_dir()),
        libraries=tuple(sorted({name for name in libraries if not name.startswith(within)})),
    )
