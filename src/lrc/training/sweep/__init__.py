"""A sweep: an Optuna study whose trials train one recipe with different values of some of its keys.

May import `training` and what that may import. Optuna is imported by `study` only.

Public: `read_sweep` of `sweep_file`, `open_study` of `study`, `SweepTrial` of `trial`,
`LeaderboardEntry` of `leaderboard`.
"""
