"""Predicts a run without training: its tokens, rows and steps, and its memory, measured on the meta device.

May import `training` and the rooms below it.

Public: `measure_workload` of `workload`, `Planner` of `memory_plan`, `suggest_changes` of `suggestions`, `Preview` of
`render`.
"""
