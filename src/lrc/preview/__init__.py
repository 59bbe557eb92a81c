"""What a run would compute and hold, without training: tokens, rows, steps, and memory measured on the meta device.

May import `training` and the rooms below it.

Public: `measure_workload` of `workload`, `Planner` of `memory_plan`, `suggest_changes` of `suggestions`, `Preview` of
`render`.
"""
