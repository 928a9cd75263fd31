"""The script that runs inside the sandbox: it runs one program and reports how it ended.

Its text is passed to a bare interpreter; lorasweep only imports its constants. Standard input holds
the program, followed by a secret. The script writes to the verdict pipe that the program starts,
and then either the secret, once the program has reached its end, or the error that ended it. So a
program that leaves early cannot pass, whatever it prints or returns. The secret stays unread in the
file until the program has ended, so it is not in the interpreter's memory for the program to find.
"""

from __future__ import annotations

import os
import resource
import sys
from types import TracebackType

STARTED = b"\n"
DETAIL_CHARACTERS = 200


def limit(kind: int, value: int, grace: int = 0) -> None:
    """Lower a resource limit; a hard limit that is lower already stays, as it cannot be raised."""
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    highest = value + grace if hard == resource.RLIM_INFINITY else min(value + grace, hard)
    resource.setrlimit(kind, (value, highest))


def describe_error(error: BaseException) -> bytes:
    """Describe an exception in a line, with the line of the program that raised it."""
    try:
        text = str(error)[:DETAIL_CHARACTERS].strip().replace("\n", " ")
        trace: TracebackType | None = error.__traceback__
        line = 0
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == "<program>":
                line = trace.tb_lineno
            trace = trace.tb_next
        where = f"line {line}: " if line else ""
        said = f"{where}{type(error).__name__}{': ' if text else ''}{text}"
    except BaseException:  # the program's own exception class may fail to print
        said = "an exception that cannot be shown"
    return said[:DETAIL_CHARACTERS].encode("utf-8", "replace")


def main() -> None:
    """Read the program, lower the limits, run it and report how it ended."""
    verdict, length, cpu_s, memory_bytes, file_bytes = map(int, sys.argv[1:])
    sys.argv[:] = ["program.py"]
    # Bound to locals, so that a program that patches os or builtins does not change them.
    write, read, leave, describe = os.write, os.pread, os._exit, describe_error
    given = os.dup(0)
    os.set_inheritable(verdict, False)
    program = read(given, length, 0).decode("utf-8", "surrogatepass")
    # Standard output is /dev/null. Until here, 2 took error messages of the sandbox itself.
    os.dup2(1, 0)
    os.dup2(1, 2)
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_NOFILE, 64)
    limit(resource.RLIMIT_MEMLOCK, 0)
    limit(resource.RLIMIT_FSIZE, file_bytes)
    limit(resource.RLIMIT_AS, memory_bytes)
    # SIGXCPU comes at the soft limit and SIGKILL at the hard one, a second later, so that a timeout
    # can be told from a kill by something else.
    limit(resource.RLIMIT_CPU, cpu_s, grace=1)
    module = type(sys)("__main__")
    sys.modules["__main__"] = module
    write(verdict, STARTED)
    try:
        exec(compile(program, "<program>", "exec", dont_inherit=True), vars(module))
    except BaseException as error:  # SystemExit too: it did not reach its end
        write(verdict, describe(error))
        leave(1)
    write(verdict, read(given, 64, length))
    leave(0)


if __name__ == "__main__":
    main()
