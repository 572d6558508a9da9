"""What README and the lectures say of the course is so: its figure is the lecture's, its numbers are counted."""

import json
import re
import shutil
from pathlib import Path

import pytest
from helpers import LECTURES, ROOT

from course_utils.__main__ import COMMANDS
from course_utils.classroom import readme
from course_utils.methods import METHODS
from course_utils.training import SETTINGS

WORDS = "no one two three four five six seven eight nine ten eleven twelve".split()
RECORDS = [path.stem for path in (ROOT / "data" / "recorded_runs").glob("*.npz")]
LONGER = [path.stem for path in (ROOT / "data" / "recorded_runs").glob("*/*.npz")]
TABLE = [re.fullmatch(r"(\w+)-([A-F])-(\d)", name) for name in RECORDS]
RECORDED, SETTING, SEED = (sorted({row[i] for row in TABLE if row}) for i in (1, 2, 3))


def sources(path: Path) -> str:
    """What stands in the cells of a notebook, or the text of another file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    return "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])


def number_of_exercises(path: Path) -> int:
    return len(re.findall(r"^### Exercise ", sources(path), re.MULTILINE))


N = {
    "lectures": len(LECTURES),
    "exercises": sum(map(number_of_exercises, LECTURES)),
    "exercises of 01": number_of_exercises(LECTURES[1]),
    "of the table": sum(map(bool, TABLE)),
    "with other n_dis": sum("_ndis" in name for name in RECORDS),
    "methods": len(RECORDED),
    "settings": len(SETTING),
    "seeds": len(SEED),
    "left": len(LECTURES) - 1 - 5,  # after 00 and the five on the paper
}
WORD = {name: WORDS[n] for name, n in N.items() if n < len(WORDS)}

# Where a number stands, and the words around it.
CLAIMS = [
    ("README.md", f"{WORD['lectures'].capitalize()} Jupyter lectures on"),
    ("README.md", f"the exercises ({N['exercises']}, each with a hint"),
    ("README.md", f"{N['of the table']} recorded runs, {WORD['methods']} methods under the paper's {WORD['settings']} settings"),
    ("README.md", f"settings, and {len(LONGER)} longer ones"),
    ("05", f"read {len(RECORDS) + len(LONGER)} recorded runs"),
    ("data/README.md", f"{N['methods']} methods x {N['settings']} settings x {N['seeds']} seeds"),
    ("00", f"what the next five lectures are about. {WORD['left'].capitalize()} more follow"),
    ("01", f"for the {WORD['exercises of 01']} exercises"),
    ("05", f"the whole table of {WORD['methods']} methods and {WORD['settings']} settings, recorded"),
    ("05", f"**{WORD['methods']} methods × {WORD['settings']} settings × {WORD['seeds']} seeds**"),
    ("05", f"The table has {N['of the table']} runs; {WORD['with other n_dis']} more, with other $n_{{\\mathrm{{dis}}}}$, follow"),
    ("05", f"the same question for all {WORD['methods']} methods".capitalize()),
]  # fmt: skip


@pytest.mark.parametrize(("place", "words"), CLAIMS)
def test_a_number_in_a_text_is_counted(place: str, words: str) -> None:
    path = ROOT / place if place.endswith(".md") else LECTURES[int(place)]
    assert words in sources(path), f"{path.name} should say: {words}"


def test_every_number_of_exercises_or_lectures_in_readme_is_counted() -> None:
    """A sentence that comes later gets its row in CLAIMS."""
    told = re.findall(rf"\b(?:{'|'.join(WORDS)}|\d+) (?:\w+ )?(?:lectures|exercises|recorded runs)\b",
                      (ROOT / "README.md").read_text("utf-8"), re.IGNORECASE)  # fmt: skip
    counted = [words for place, words in CLAIMS if place == "README.md"]
    assert told and all(any(phrase in words for words in counted) for phrase in told), told


def test_the_table_of_recorded_runs_is_whole() -> None:
    assert N["of the table"] == N["methods"] * N["settings"] * N["seeds"] == len(RECORDS) - N["with other n_dis"]
    assert set(RECORDED) <= set(METHODS) and set(SETTING) == set(SETTINGS)


def test_every_lecture_has_a_row_in_readme_and_on_the_first_page() -> None:
    for path in LECTURES:
        assert f"](notebooks/{path.name}) |" in sources(ROOT / "README.md"), path.name
        assert path == LECTURES[0] or f"]({path.name}) |" in sources(LECTURES[0]), path.name


# ---- the figure


def test_readme_shows_the_lectures_figure(capsys: pytest.CaptureFixture) -> None:
    assert readme.main(["--check"]) == 0, capsys.readouterr().out
    assert f"]({readme.FIGURE})" in sources(ROOT / "README.md")


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the lecture that draws the figure, and a figure of another day."""
    for folder in ("data", "notebooks"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / readme.LECTURE, tmp_path / readme.LECTURE)
    (tmp_path / readme.FIGURE).write_bytes(b"old")
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    return tmp_path


def test_an_old_figure_is_found_and_written_anew(course: Path, capsys: pytest.CaptureFixture) -> None:
    figure = course / readme.FIGURE
    assert readme.main(["--check"]) == 1 and figure.read_bytes() == b"old"
    assert "run python -m course_utils readme" in capsys.readouterr().out
    assert readme.main([]) == 0 and readme.main(["--check"]) == 0
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_a_lecture_without_the_figure_is_named(course: Path) -> None:
    with pytest.raises(ValueError, match="05_gan_training.ipynb must have a cell inside-figure with one stored figure"):
        path = course / readme.LECTURE
        nb = json.loads(path.read_text("utf-8"))
        next(cell for cell in nb["cells"] if cell["id"] == "inside-figure")["outputs"] = []
        path.write_text(json.dumps(nb), encoding="utf-8")
        readme.main([])


# ---- CONTRIBUTING


def test_contributing_names_what_is_there() -> None:
    """Files, folders and commands; what a recipe makes is called 08."""
    text = sources(ROOT / "CONTRIBUTING.md")
    paths = set(re.findall(r"\b(?:tests|course_utils|notebooks|data)/[\w/.*-]*\w", text))
    missing = [path for path in paths if "08" not in path and path != "data/runs/try" and not list(ROOT.glob(path))]
    assert len(paths) > 15 and not missing, missing
    commands = set(re.findall(r"python -m course_utils (\w+)", text))
    assert {"execute", "exercises", "readme"} <= commands <= set(COMMANDS)
