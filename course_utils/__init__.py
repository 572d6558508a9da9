"""Shared module of the course on spectral normalization. What lies in this folder is what the lectures teach from.

The mathematics: `spectral`, `lipschitz`, `normalization`; `recurrent` for lecture 06, `beyond` for lecture 07. The GAN: `data`,
`models`, `methods` (a row for each normalization), `training`, `metrics`, `records`. What a reader sees: `plotting`,
`interactive`, `checks`. What guards and surrounds it: `validation`, `environment`. An order for an evening: spectral,
normalization, methods, models, training.

Two more rings lie around it, and nothing in here imports them: `long_runs` (checkpoints, folders, the fast loop, several
processes, FID) and `classroom` (exercise notebooks, slides). Commands of both: ``python -m course_utils --help``.
"""
