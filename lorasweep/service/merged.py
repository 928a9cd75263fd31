"""`tune --merge`: the best LoRA trials merged into their base, beside the adapters."""

from __future__ import annotations

import shutil

from lorasweep.errors import LorasweepError, SpecError, in_a_line
from lorasweep.spec.sweep import SweepSpec
from lorasweep.store.best import find_best
from lorasweep.store.configurations import configurations
from lorasweep.store.kept import describe, kept_folder
from lorasweep.store.paths import SweepPaths
from lorasweep.store.results import SweepResults

# Rounding by less than this share of an update is not worth a word.
_SAID = 0.01


def check_merge(spec: SweepSpec) -> None:
    """Check that a sweep has adapters to merge.

    Raises:
        SpecError: it finetunes whole models only.
    """
    if not any(study.method == "lora" for study in spec.studies):
        raise SpecError(
            ["--merge: must come with a LoRA study, whose adapters it merges, got method full only"]
        )


def merge_best(results: SweepResults, paths: SweepPaths) -> list[str]:
    """Merge the best adapter of each domain, unless that has been done.

    Returns:
        A line for each domain: where the merged model is.

    Raises:
        LorasweepError: an adapter is gone or is not the one that was measured, or the merged model
            cannot be written.
    """
    lines = []
    for part in results.parts:
        for best in find_best(configurations(part.trials)):
            if best.method == "lora":
                lines.append(_merge(best.winner.trial, part.domain, results, paths))
    if not lines:
        raise LorasweepError("--merge: no LoRA trial has completed, so there is nothing to merge")
    return lines


def _merge(trial: str, domain: str, results: SweepResults, paths: SweepPaths) -> str:
    folder, name = paths.merged(domain), paths.merged_trial(domain)
    if name.is_file() and name.read_text(encoding="utf-8").strip() == trial:
        return f"merged   {folder}"
    if folder.exists() and not name.is_file():
        raise LorasweepError(
            f"--merge: {folder} must be free or hold a merged model of this sweep, and holds "
            "something else; move it away"
        )
    check = results.kept.get(trial)
    if check is not None and check.status in {"differs", "unloadable"}:
        raise LorasweepError(f"--merge: nothing was merged, since {describe(check)}")
    adapter = kept_folder(paths, trial, "lora", domain)
    if adapter is None or results.spec is None:
        raise LorasweepError(
            f"--merge: the adapter of trial {trial} is gone, from {paths.trial(trial).adapter} and "
            f"from {paths.best('lora', domain)}"
        )
    from lorasweep.lanes.quiet import quiet_loggers
    from lorasweep.model.merged import save_merged

    quiet_loggers()
    # Written beside its place and renamed, so that a full disk leaves an earlier one alone.
    temporary = folder.with_name(f".{folder.name}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        rounding = save_merged(results.spec.model, adapter, temporary)
        (temporary / name.name).write_text(f"{trial}\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    except Exception as error:
        if not _is_writing(error):
            raise
        raise LorasweepError(
            f"--merge: {folder} cannot be written ({in_a_line(error)}); fix that and run this "
            "command again, which only merges then"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    adapter_kept = paths.best("lora", domain)
    said = f"; rounding to its dtype changed the update by {rounding:.0%}, {adapter_kept} is exact"
    return f"merged   {folder}{said if rounding >= _SAID else ''}"


def _is_writing(error: Exception) -> bool:
    """Check whether an error is one of reading or writing files; safetensors has its own."""
    return isinstance(error, OSError) or type(error).__name__ == "SafetensorError"
