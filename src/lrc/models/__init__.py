"""Base models and adapters: finding, identifying, loading, quantizing and merging them.

May import `config`, `data`, `packing` and `runtime`.

Public: `load_tokenizer` and `load_config` of `loading`, `load_for_answering` of `answering_model`, `load_base_model`
and `build_lora_config` of `from_recipe`, `fingerprint_base` and `verify_base` of `fingerprint`, `WeightFiles` of
`weights`.
"""
