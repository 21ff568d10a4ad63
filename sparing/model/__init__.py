"""The ground floor: a transformer that can be run in parts.

Finding a checkpoint (`sources`, `smollm2`), its config, its weights and matrix products, the subset
of layers to run, the Decoder that runs them, and the chat format around its text. Every other room
stands on this one; it imports none of them.
"""
