"""The frozen base, LoRA adapters on it, and the sizes of both."""
