"""Shared module of the course on spectral normalization: what the lectures teach, every algorithm once.

Three rings, and imports only point inward (pyproject.toml, import-linter). The files of this folder are the core. The
mathematics: `spectral`, `normalization`, `lipschitz`, `recurrent`, `beyond`; the GAN: `data`, `models`, `methods`,
`training`, `metrics`; what a reader sees: `plotting`, `interactive`, `records`; what guards it: `validation`, `environment`.
`checks` answers the exercises. Around it: `long_runs`, training without Jupyter, and `classroom`, which builds what a class
sees. One door for commands: ``python -m course_utils --help``.
"""
