"""Where a model comes from: a folder, a hub name, a GGUF file, or a PEFT adapter with its base."""
