"""One door for all commands: ``python -m course_utils COMMAND ...``; ``--help`` lists them, ``COMMAND --help`` explains one."""

import sys
from importlib import import_module

COMMANDS = {  # module with a main(arguments), and what it is for
    "train": ("long_runs.command_line", "train a GAN in a folder: checkpoint, record, samples"),
    "benchmark": ("long_runs.benchmark", "time every method side by side on this machine"),
    "record": ("long_runs.record_plan", "make the recorded runs behind lecture 05 that are missing"),
    "recurrent": ("long_runs.recurrent_records", "make the record behind lecture 06 again"),
    "average": ("long_runs.average_records", "make the record of averaged generators again"),
    "execute": ("classroom.execute", "run lectures in fresh kernels and store their outputs"),
    "exercises": ("classroom.exercises", "generate the exercise notebooks from the lectures"),
    "slides": ("classroom.slides", "build the slide decks"),
    "site": ("classroom.site", "build the website, with figures that move without a kernel"),
    "setup": ("classroom.setup_cell", "write the first lines of the lectures' setup cells"),
    "readme": ("classroom.readme", "copy README's figure from the lecture that draws it"),
}


def main(arguments: list[str]) -> int:
    """Hand the arguments to the command they name; return its exit status."""
    name, *rest = arguments or ["--help"]
    if name in COMMANDS:
        return import_module(f"course_utils.{COMMANDS[name][0]}").main(rest) or 0
    lines = (f"  {command:10s} {about}" for command, (_, about) in COMMANDS.items())
    usage = "\n".join(["usage: python -m course_utils COMMAND [--help] ...", "", *lines])
    if name in ("-h", "--help"):
        print(usage)
        return 0
    print(f"{usage}\n\nerror: unknown command {name!r}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
