"""Programs that attack the sandbox, one for each protection it promises.

They run before the first generated program. None does harm where a protection is missing: each only
tries something that should be refused.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from lorasweep.evaluate.sandbox.bubblewrap import ENVIRONMENT, FOLDER, MAX_FILES, Limits
from lorasweep.evaluate.sandbox.interpreter import find_interpreter

_REFUSED = """
def refused(action, *errors):
    try:
        action()
    except errors or OSError:
        return True
    return False
"""


@dataclass(frozen=True)
class Attack:
    """A protection, and a program that shows whether it holds."""

    protection: str
    program: str
    expected: str = "passed"


def attacks(secret: Path, limits: Limits) -> list[Attack]:
    """List the attacks; the first one only checks whether anything runs at all.

    Args:
        secret: a file that this process can read, and the sandbox must not show.
        limits: of the sandbox.
    """
    interpreter = find_interpreter()
    shown = {interpreter.program, *interpreter.folders, *interpreter.libraries}
    closed = ["/", "/dev", str(Path(os.__file__).parent), str(Path(sys.executable).parent)]
    names = {*ENVIRONMENT, "LD_LIBRARY_PATH", "LC_CTYPE", "PWD"}
    return [
        Attack("a right program passes", "assert sum(range(4)) == 6"),
        Attack("a wrong program fails", "assert sum(range(4)) == 7", "failed"),
        Attack("a program that leaves early fails", "import os; os._exit(0)", "failed"),
        Attack("there is no network", f"{_REFUSED}import socket; assert refused(socket.socket)"),
        Attack(
            "files outside cannot be read",
            f"import os; assert not os.path.exists({str(secret)!r})\n"
            f"shown = { ({*shown, FOLDER, '/dev/null'}) }\n"
            "for folder, folders, files in os.walk('/'):\n"
            "    paths = {name: os.path.join(folder, name) for name in folders + files}\n"
            "    folders[:] = [name for name in folders if paths[name] not in shown]\n"
            "    assert not [name for name in files if paths[name] not in shown], folder\n"
            f"for folder in {interpreter.packages}: assert not os.listdir(folder)",
        ),
        Attack(
            "nothing outside can be written to",
            f"import os; assert not [path for path in {closed} if os.access(path, os.W_OK)]",
        ),
        Attack(
            "no variable comes in", f"import os; assert not set(os.environ) - {names}, os.environ"
        ),
        Attack(
            "there is one process with one thread",
            f"{_REFUSED}import os, threading; assert refused(os.fork)\n"
            "assert refused(threading.Thread(target=id, args=(0,)).start, RuntimeError)",
        ),
        Attack(
            "processes outside are out of sight and reach",
            f"{_REFUSED}import os; assert os.getpid() < 10\n"
            "assert refused(lambda: os.kill(-1, 0)) and refused(lambda: os.kill(os.getppid(), 0))",
        ),
        Attack(
            "there are no privileges",
            "import ctypes; library = ctypes.CDLL(None)\n"
            "assert library.ptrace(0, 0, 0, 0) == -1\n"
            f"assert library.mount(b'none', b'{FOLDER}', b'tmpfs', 0, None) == -1\n"
            "assert library.unshare(0x10000000) == -1 and library.setns(0, 0) == -1",
        ),
        Attack(
            "memory is bounded",
            f"{_REFUSED}assert refused(lambda: bytearray({limits.memory_bytes}), MemoryError)",
        ),
        Attack(
            "the size of files is bounded",
            f"{_REFUSED}import os; space = os.statvfs('{FOLDER}')\n"
            f"assert space.f_blocks * space.f_frsize < {limits.file_bytes} + 65536\n"
            "file = open('large', 'wb')\n"
            f"assert refused(lambda: os.truncate(file.fileno(), {limits.file_bytes} + 1))",
        ),
        Attack(
            "the number of files is bounded",
            f"import time\nfor number in range({2 * MAX_FILES}):\n"
            "    open(str(number), 'w').close()\ntime.sleep(5)",
            "failed",
        ),
        Attack(
            "CPU time is bounded",
            "import resource\n"
            f"assert resource.getrlimit(resource.RLIMIT_CPU)[1] <= {limits.cpu_s} + 1",
        ),
        Attack("an endless program is ended", "while True: pass", "timed_out"),
    ]
