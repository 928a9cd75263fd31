"""Assemble the seccomp filter: the system calls that a sandboxed program may make.

It is a list of what is allowed, so whatever a newer kernel adds is refused. Not on it are, among
others, fork, clone (so neither processes nor threads), sockets of every family, sending signals,
ptrace, mount, unshare, keyctl, bpf, userfaultfd, io_uring, perf_event_open and memfd_create.

References:
    Kernel documentation, userspace-api/seccomp_filter; the numbers are those of the kernel's
    headers asm/unistd_64.h (x86_64) and asm-generic/unistd.h (aarch64).
"""

from __future__ import annotations

import errno
import functools
import struct

from lorasweep.errors import SandboxError

# Classic BPF as far as it is needed here, from linux/bpf_common.h and linux/seccomp.h.
_LOAD_WORD = 0x20
_JUMP_IF_EQUAL = 0x15
_RETURN = 0x06
_NUMBER_OFFSET = 0  # in struct seccomp_data
_ARCHITECTURE_OFFSET = 4
_ALLOW = 0x7FFF0000
_KILL_PROCESS = 0x80000000
# "No such system call" rather than "not permitted": the C library then tries an older one.
_REFUSE = 0x00050000 | errno.ENOSYS

# AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64, and the column of the table with their numbers.
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

ALLOWED: dict[str, tuple[int, int | None]] = {
    # Files that are already visible, and pipes within the process.
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "preadv": (295, 69),
    "pwritev": (296, 70),
    "lseek": (8, 62),
    "open": (2, None),
    "openat": (257, 56),
    "creat": (85, None),
    "close": (3, 57),
    "close_range": (436, 436),
    "dup": (32, 23),
    "dup2": (33, None),
    "dup3": (292, 24),
    "fcntl": (72, 25),
    "ioctl": (16, 29),
    "pipe": (22, None),
    "pipe2": (293, 59),
    "flock": (73, 32),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "ftruncate": (77, 46),
    "truncate": (76, 45),
    "fallocate": (285, 47),
    "fadvise64": (221, 223),
    "sendfile": (40, 71),
    "copy_file_range": (326, 285),
    # Paths and metadata; the sandbox only shows what may be seen.
    "stat": (4, None),
    "lstat": (6, None),
    "fstat": (5, 80),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "getdents": (78, None),
    "getdents64": (217, 61),
    "getcwd": (79, 17),
    "chdir": (80, 49),
    "fchdir": (81, 50),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "umask": (95, 166),
    "utimensat": (280, 88),
    "statfs": (137, 43),
    "fstatfs": (138, 44),
    # Memory, which the address-space limit bounds.
    "brk": (12, 214),
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "mincore": (27, 232),
    "membarrier": (324, 283),
    # Its own signal handlers and timers. It may not send signals, not even to itself.
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "rt_sigpending": (127, 136),
    "rt_sigtimedwait": (128, 137),
    "sigaltstack": (131, 132),
    "pause": (34, None),
    "alarm": (37, None),
    "setitimer": (38, 103),
    "getitimer": (36, 102),
    # Waiting for time, files and locks.
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "epoll_create": (213, None),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "eventfd2": (290, 19),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "futex": (202, 98),
    "restart_syscall": (219, 128),
    "sched_yield": (24, 124),
    # Facts about the process itself, and resource limits, which it can only lower.
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "times": (100, 153),
    "getrusage": (98, 165),
    "sysinfo": (99, 179),
    "uname": (63, 160),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getppid": (110, 173),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getresuid": (118, 148),
    "getresgid": (120, 150),
    "getgroups": (115, 158),
    "getpgrp": (111, None),
    "getpgid": (121, 155),
    "getsid": (124, 156),
    "getpriority": (140, 141),
    "getcpu": (309, 168),
    "sched_getaffinity": (204, 123),
    "getrlimit": (97, 163),
    "prlimit64": (302, 261),
    "setrlimit": (160, 164),
    "getrandom": (318, 278),
    # Start and end of this one process; bubblewrap itself needs execve and wait4.
    "execve": (59, 221),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "wait4": (61, 260),
    "set_tid_address": (218, 96),
    "set_robust_list": (273, 99),
    "get_robust_list": (274, 100),
    "rseq": (334, 293),
    "arch_prctl": (158, None),
}


@functools.cache
def allowing_filter(architecture: str) -> bytes:
    """Assemble the filter that allows the calls in ALLOWED, as bubblewrap reads it: raw BPF.

    A call by another architecture's convention (32-bit on x86_64) kills the program, since its
    numbers mean other calls. Numbers of x32 have a bit of their own, so they match no entry.

    Args:
        architecture: `os.uname().machine`.

    Raises:
        SandboxError: its call numbers are not in the table.
    """
    if architecture not in _ARCHITECTURES:
        known = " or ".join(_ARCHITECTURES)
        raise SandboxError(
            f"the sandbox for generated code: the machine must be {known}, got {architecture!r}; "
            "leave tasks that run code out of the sweep"
        )
    audit, column = _ARCHITECTURES[architecture]
    # A chain of comparisons in which a jump skips one instruction: the architecture, then for each
    # allowed number a comparison followed by "allow". Whatever falls through is refused.
    steps = [
        (_LOAD_WORD, 0, 0, _ARCHITECTURE_OFFSET),
        (_JUMP_IF_EQUAL, 1, 0, audit),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD_WORD, 0, 0, _NUMBER_OFFSET),
    ]
    for numbers in ALLOWED.values():
        number = numbers[column]
        if number is not None:
            steps += [(_JUMP_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    steps.append((_RETURN, 0, 0, _REFUSE))
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
