"""Code tasks: prompts, programs that are run in the sandbox, pass@k and diversity."""
