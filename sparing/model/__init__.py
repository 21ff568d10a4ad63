"""The model: find it, read it, run a pass, format its chat.

sources, hub, smollm2   a model's name to its files
checkpoint, gguf        config, weights and tokenizer of a Hugging Face directory or a GGUF
assemble, decoder       weights to a Decoder, which runs all sub-layers or a LayerSet
chat                    prompts to token ids and back

Every other package builds on this one.
"""
