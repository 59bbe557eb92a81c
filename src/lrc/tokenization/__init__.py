"""Record → tokens: the prompt, what happens to one that is too long, and the cache of tokenized files.

May import `data`, `config`, `packing` and `runtime`.

Public: `Prompt` of `prompt`, `LengthPolicy` of `max_length`, `read_corpus` and `Corpus` of `token_dataset`.
"""
