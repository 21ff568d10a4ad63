"""The ground floor: a transformer that can be run in parts.

Finding a model (`sources`, `hub`, `smollm2`), reading it from a Hugging Face directory or a GGUF
(`checkpoint`), its weights and matrix products, the subset of layers to run, the Decoder that runs
them, and the chat format around its text. Every other room stands on this one.
"""
