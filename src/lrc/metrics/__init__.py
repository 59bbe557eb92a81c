"""Metrics of answers: accuracy and its interval, baselines, calibration, pools of several models, training curves.

May import `data`, `config` and `runtime`. Knows no torch.

Public: `OptionScores` of `option_scores`, `accuracy` and `compare_paired` of `accuracy`, `judge` of `verdict`,
`Outcome` and `read_outcomes` of `predictions`, `fit_temperature` of `calibration`, `read_curves` of `training_log`.
"""
