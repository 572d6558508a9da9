"""What a class sees, built from the lectures: exercise notebooks, slides, setup cells, the website.

One door for all commands: ``python -m course_utils --help``.
"""
