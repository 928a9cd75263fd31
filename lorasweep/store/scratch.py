"""Folders outside of the results folder that libraries write to: temporary files and caches."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from lorasweep.errors import UsageError

# A Unix socket's path may have 107 bytes, and Ray's own part of it is
# /session_2026-11-28_02-54-09_803784_4194304/sockets/plasma_store.
_SOCKET_BYTES = 107
_RAY_BYTES = len("/session_2026-11-28_02-54-09_803784_4194304/sockets/plasma_store")
_ROOM = 32 * 2**20  # logs of one session take 2 MB, of a long sweep some more


def ray_folder() -> Path | None:
    """Choose the folder for the sockets and logs of a Ray that is started on this machine.

    Returns:
        The first usable one of those that the environment and the system name; None if that is
        Ray's own choice.

    Raises:
        UsageError: none is usable.
    """
    named = {name: os.environ.get(name) for name in ("RAY_TMPDIR", "TMPDIR", "TEMP", "TMP")}
    named |= {"/tmp": "/tmp", "/var/tmp": "/var/tmp"}  # as tempfile has them
    problems: list[str] = []
    for name, folder in named.items():
        if not folder:
            continue
        # Ray's own name first; on a shared machine that may be another user's.
        for candidate in (Path(folder) / "ray", Path(folder) / f"ray-{os.getuid()}"):
            if (reason := _unusable(candidate)) is None:
                if problems:
                    _say(f"{problems[0]}; Ray's sockets and logs go to {candidate}")
                is_ray_s_choice = not problems and name in {"RAY_TMPDIR", "TMPDIR", "/tmp"}
                return None if is_ray_s_choice and candidate.name == "ray" else candidate
        where = folder if name == folder else f"{name}={folder}"
        problems.append(f"{where} {reason}")
    raise UsageError(
        f"RAY_TMPDIR: Ray needs a folder for its sockets and logs, and {', '.join(problems)}; set "
        "RAY_TMPDIR to a folder with a short name that can be written"
    )


def _unusable(folder: Path) -> str | None:
    """Find out why a folder cannot be Ray's; None if it can be."""
    most = _SOCKET_BYTES - _RAY_BYTES
    if (size := len(os.fsencode(folder))) > most:
        return f"is too long for the path of a socket (at most {most} bytes with /ray, got {size})"
    if (reason := _unwritable(folder)) is not None:
        return f"cannot be written ({reason})"
    if (free := shutil.disk_usage(folder).free) < _ROOM:
        return f"has no room ({free / 2**20:.0f} MiB free, {_ROOM // 2**20} needed)"
    return None


def _unwritable(folder: Path) -> str | None:
    """Create a folder and try to write in it; returns the reason if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"probe")
            probe.flush()
    except FileExistsError:
        return "it is a file"
    except OSError as error:
        return error.strerror or str(error)
    return None


def use_own_token() -> None:
    """Choose a token for a Ray that is started here, where Ray could not keep one in the home.

    Ray otherwise writes ~/.ray/auth_token, and cannot be started with a home that is read-only, a
    file, or unknown.
    """
    chosen = os.environ.get("RAY_AUTH_MODE", "token").lower() == "token"
    named = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    if not chosen or named:
        return
    try:
        kept = Path.home() / ".ray" / "auth_token"
        is_kept = kept.is_file() and kept.stat().st_size > 0  # a full disk leaves an empty one
        if is_kept or _unwritable(kept.parent) is None:
            return
    except (RuntimeError, OSError):  # nobody knows the home, or it may not be entered
        pass
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def use_writable_caches() -> None:
    """Move the caches that Hugging Face's libraries always write, if they cannot be written.

    They write them for local files too. Models stay where they are: a cache of models that is
    read-only and shared serves well.

    Raises:
        UsageError: there is no temporary folder to move them to either.
    """
    moved: dict[str, str] = {}
    for variable, leaf in (("HF_DATASETS_CACHE", "datasets"), ("HF_MODULES_CACHE", "modules")):
        folder, names = _cache(variable, leaf)
        reason = "nobody knows the home folder" if folder is None else _unwritable(folder)
        if reason is not None:
            moved[variable] = f"{names}: the cache {folder or leaf} cannot be written ({reason})"
    if not moved:
        return
    try:
        temporary = tempfile.mkdtemp(prefix="lorasweep-cache-")
    except OSError as error:
        raise UsageError(
            f"{next(iter(moved.values()))}, and neither can a temporary folder ({error.strerror}); "
            "set HF_HOME and TMPDIR to folders that can be written"
        ) from None
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    for variable in moved:
        os.environ[variable] = str(Path(temporary) / variable.lower())
    _say(f"{next(iter(moved.values()))}; {temporary} serves until the end of this command")


def _cache(variable: str, leaf: str) -> tuple[Path | None, str]:
    """Find a cache of Hugging Face's, and which variable decides where it is."""
    if given := os.environ.get(variable):
        return Path(given).expanduser(), variable
    for name, below in (("HF_HOME", ""), ("XDG_CACHE_HOME", "huggingface")):
        if given := os.environ.get(name):
            return Path(os.path.expandvars(given)).expanduser() / below / leaf, name
    try:
        return Path.home() / ".cache" / "huggingface" / leaf, "HOME"
    except RuntimeError:
        return None, "HOME"


def _say(sentence: str) -> None:
    print(f"lorasweep: {sentence}", file=sys.stderr)
