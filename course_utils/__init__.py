"""Shared module of the course on spectral normalization: small enough to read in one evening.

The mathematics is in `spectral`, `normalization` and `lipschitz`; the GAN in `data`, `models`, `training` and `metrics`;
what a reader sees in `plotting`, `interactive` and `checks`; what your machine is in `environment`.
"""
