"""Recipes: one run's YAML each, `<base model>/<method>.yaml`."""
