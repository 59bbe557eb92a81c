"""The recipe: its keys, their types, limits and rules, the overrides on the command line, and the record of a run.

May import `runtime`. Only `arguments` and `trackers` import torch (through TRL and transformers), so that a
faulty recipe is refused before the seconds that those imports take.

Public: `find_recipe`, `read_recipe` and `load_recipe` of `recipe`, `Run` and `read_run` of `run_record`, `Topology` of
`accelerate_config`.
"""
