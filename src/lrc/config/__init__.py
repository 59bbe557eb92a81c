"""The recipe: its keys, their types, bounds and rules, the overrides on the command line, and the record of a run.

May import `runtime`. Only `arguments` and `trackers` import torch when they are imported (through TRL and
transformers), so that an invalid recipe is refused before the seconds that this takes.

Public: `find_recipe`, `read_recipe` and `load_recipe` of `recipe`, `Run` and `read_run` of `run_record`, `Topology` of
`accelerate_config`.
"""
