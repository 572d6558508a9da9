"""Shared module of the course on spectral normalization: what the lectures teach can be read in one evening.

The mathematics is in `spectral`, `normalization` and `lipschitz`; the GAN in `data`, `models`, `training` and `metrics`;
what a reader sees in `plotting`, `interactive` and `checks`; what your machine is in `environment`.
Beside it, for long runs: `runs`, `parallel`, `fast`, `command_line`, `benchmark`, `sweep`, `inception`; and what builds
pages: `exercises`, `slides`.
"""
