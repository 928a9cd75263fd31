"""Run one program and say how it ended; this file is what a sandbox starts.

The sandbox hands this text to a bare interpreter and never imports it. It reads the program from
its standard input, where a secret follows it, and writes three things at most to the verdict's
pipe: that the program begins; then either the secret, once the program has run to its very end,
or the error that ended it. A program that leaves early can therefore not pass, whatever it prints
or returns. The secret stays unread in the file until the program is done.
"""

from __future__ import annotations

import os
import resource
import sys
from types import TracebackType

STARTED = b"\n"
DETAIL_CHARACTERS = 200


def limit(kind: int, value: int, grace: int = 0) -> None:
    """Lower a resource limit; one that is lower already stays, since it could not be raised."""
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    highest = value + grace if hard == resource.RLIM_INFINITY else min(value + grace, hard)
    resource.setrlimit(kind, (value, highest))


def last_line(error: BaseException) -> bytes:
    """Name an exception and the line of the program that raised it."""
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
    except BaseException:  # the program may have made an exception that cannot be printed
        said = "an exception that cannot be shown"
    return said[:DETAIL_CHARACTERS].encode("utf-8", "replace")


def main() -> None:
    """Read the program, lower the limits, run it and say how it ended."""
    verdict, length, cpu_s, memory_bytes, file_bytes = map(int, sys.argv[1:])
    sys.argv[:] = ["program.py"]
    # Whatever the program does to os or builtins, these stay what they are.
    write, read, leave, describe = os.write, os.pread, os._exit, last_line
    given = os.dup(0)
    os.set_inheritable(verdict, False)
    program = read(given, length, 0).decode("utf-8", "surrogatepass")
    os.dup2(1, 0)  # standard output is /dev/null; errors of the sandbox itself went to 2 so far
    os.dup2(1, 2)
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_NOFILE, 64)
    limit(resource.RLIMIT_MEMLOCK, 0)
    limit(resource.RLIMIT_FSIZE, file_bytes)
    limit(resource.RLIMIT_AS, memory_bytes)
    # A second's grace lets the signal that says "time is over" come before the one that kills.
    limit(resource.RLIMIT_CPU, cpu_s, grace=1)
    module = type(sys)("__main__")
    sys.modules["__main__"] = module
    write(verdict, STARTED)
    try:
        exec(compile(program, "<program>", "exec", dont_inherit=True), vars(module))
    except BaseException as error:  # SystemExit too: the program did not reach its end
        write(verdict, describe(error))
        leave(1)
    write(verdict, read(given, 64, length))
    leave(0)


if __name__ == "__main__":
    main()
