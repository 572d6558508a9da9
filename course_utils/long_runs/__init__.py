"""Training that takes minutes to days: checkpoints, records, folders, the fast loop, several processes, FID.

Nothing in here is needed to follow a lecture. One door for all commands: ``python -m course_utils --help``.
"""
