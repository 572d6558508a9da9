"""The exercise notebooks in a student's hands: scratch variables kill no cell, and no answer stands above its question."""

import ast
import builtins
import contextlib
import difflib
import inspect
import re
import symtable
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from course_utils import training
from course_utils.classroom import exercises, stored

LECTURES = exercises.lectures()

# One word is a name that a student takes, too. These are the exceptions: libraries under their usual names, and tools
# of the page that nobody would call a variable.
KEPT = {"torch", "nn", "F", "plt", "np", "math", "json", "parametrize", "parametrizations"}
KEPT |= {
    "check",
    "explore",
    "show",
    "deepcopy",
    "profile",
    "train",
    "normalize",
    "latch",
    "window",
    "flow",
    "play",
    "maxmin",
}
KEPT |= {"orthonormalize"}


@cache
def twin(lecture: Path) -> NotebookNode:
    return exercises.exercise_notebook(lecture)


def is_hole(cell: NotebookNode) -> bool:
    return bool(cell.metadata.get("nbgrader", {}).get("solution"))


# ---- which names of the page are needed below a hole


def free_names(node: ast.AST) -> tuple[set[str], set[str]]:
    """Global names that an expression or definition reads at once, and those that functions inside it read later."""
    top = symtable.symtable(ast.unparse(node), "cell", "exec")
    now = {s.get_name() for s in top.get_symbols() if s.is_referenced()}
    later, tables = set(), list(top.get_children())
    for table in tables:
        found = {s.get_name() for s in table.get_symbols() if s.is_global() and s.is_referenced()}
        deferred = table.get_type() == "function" and table.get_name() not in (
            "genexpr",
            "listcomp",
            "setcomp",
            "dictcomp",
        )
        if deferred:
            later |= found | set().union(*(_all_globals(child) for child in table.get_children()))
        else:
            now |= found
            tables += table.get_children()
    return now, later


def _all_globals(table: symtable.SymbolTable) -> set[str]:
    own = {s.get_name() for s in table.get_symbols() if s.is_global() and s.is_referenced()}
    return own.union(*(_all_globals(child) for child in table.get_children()))


class Cell:
    """What a code cell reads before it binds it itself, what it binds, and what its functions read when called."""

    def __init__(self, source: str) -> None:
        self.reads, self.binds, self.functions, self.drawn, self.imports = set(), set(), {}, set(), set()
        self.run(ast.parse(source).body)

    def run(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            blocks = [b for name in ("body", "orelse", "finalbody") if (b := getattr(statement, name, None))]
            if isinstance(statement, ast.FunctionDef | ast.ClassDef):
                now, later = free_names(statement)
                self.need(now - {statement.name})
                self.functions[statement.name] = later
                self.binds.add(statement.name)
            elif isinstance(statement, ast.Import | ast.ImportFrom):
                names = {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
                self.binds |= names
                self.imports |= names
            elif blocks:  # for, while, if, with, try
                for part in ("iter", "test"):
                    if expression := getattr(statement, part, None):
                        self.expression(expression)
                for item in getattr(statement, "items", []):
                    self.expression(item.context_expr)
                self.binds |= bound(statement, deep=False)
                for block in [*blocks, *(h.body for h in getattr(statement, "handlers", []))]:
                    self.run(block)
            else:
                self.expression(statement)
                self.binds |= bound(statement)

    def expression(self, node: ast.AST) -> None:
        now, later = free_names(node)
        self.need(now)
        targets = bound(node)
        for target in targets:
            self.functions[target] = later
        if not targets:  # a function passed on is called now
            self.need(later)
        for call in ast.walk(node):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "explore":
                self.drawn.add(call.args[0].id)

    def need(self, names: set[str]) -> None:
        self.reads |= names - self.binds


def bound(node: ast.AST, deep: bool = True) -> set[str]:
    """Names that a statement binds at the top level (deep=False: by its head alone)."""
    heads = ["target", "targets", "items", "optional_vars", "handlers"]
    nodes = [node] if deep else [n for h in heads for n in _listed(getattr(node, h, []))]
    scopes = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    found = set()
    while nodes:
        here = nodes.pop()
        if isinstance(here, ast.Name) and isinstance(here.ctx, ast.Store):
            found.add(here.id)
        if isinstance(here, ast.ExceptHandler):
            found |= {here.name} - {None}
        elif not isinstance(here, scopes):
            nodes += ast.iter_child_nodes(here)
    return found


def _listed(value: object) -> list:
    return value if isinstance(value, list) else [value]


def needed_below(nb: NotebookNode) -> dict[str, set[str]]:
    """For each hole the names of the page, bound above it, that a cell or a moved slider needs below it."""
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    cells = [Cell(cell.source) for cell in code]
    functions = {name: later for cell in cells for name, later in cell.functions.items()}

    def reached(names: set[str]) -> set[str]:
        found, todo = set(), list(names)
        while todo:
            if (name := todo.pop()) not in found:
                found.add(name)
                todo += functions.get(name, ())
        return found

    needed, result = set(), {}
    for cell, of in reversed(list(zip(code, cells))):
        if is_hole(cell):
            result[cell.id] = set(needed)
        needed -= of.binds
        needed |= reached(of.reads) - (of.binds - of.reads)
    above, drawn = set(), set()
    for cell, of in zip(code, cells):
        drawn |= reached(of.drawn)
        above |= of.binds
        if is_hole(cell):
            result[cell.id] = ((result[cell.id] | drawn) & above) - set(of.functions) - set(dir(builtins))
    return result


def is_taken(name: str) -> bool:
    """Whether a student may well take this name: one word. Constants and classes are nobody's scratch variables."""
    words = (
        "_" in name.strip("_")
        or (len(name) > 2 and name.isupper())
        or (name[0].isupper() and not name.isupper() and len(name) > 2)
    )
    return not words and name not in KEPT


@pytest.mark.parametrize("lecture", LECTURES, ids=lambda path: path.stem)
def test_no_cell_needs_a_name_that_a_student_would_take(lecture: Path) -> None:
    needed = needed_below(twin(lecture))
    taken = {name: [hole for hole in needed if name in needed[hole]] for hole in needed for name in needed[hole]}
    complaints = [f"{name} (bound above {holes[-1]})" for name, holes in sorted(taken.items()) if is_taken(name)]
    assert needed and not complaints, f"needed below a hole, give them two words: {', '.join(complaints)}"


# ---- which answers stand above their question

# The course's functions that answer an exercise: their source may be shown below it, not above.
SOURCES = {
    "1.4": ["layer_bounds"],
    "2.1": ["spectral_norm_gradient"],
    "2.2": ["spectral_norm_gradient"],
    "2.3": ["spectral_norm_gradient", "gradient_through_sn"],
    "2.7": ["SpectralNorm"],
    "2.8": ["DivisionBySigma"],
    "2.6": ["power_iteration_step", "SpectralNorm"],
    "3.1": ["power_iteration", "power_iteration_step"],
    "3.3": ["SpectralNorm"],
    "3.5": ["top_singular_values"],
    "3.6": ["conv_norm"],
    "4.2": ["WeightNorm"],
    "4.4": ["WeightNorm"],
    "4.6": ["clip_singular_values"],
    "5.1": ["hinge_loss", "generator_loss"],
    "5.2": ["gradient_penalty"],
    "5.3": ["one_update_of_each", "two_passes", "update_discriminator", "update_generator", "train"],
    "5.4": ["gaussian_frechet_distance", "frechet_distance"],
    "6.1": ["jacobian_products"],
    "6.4": ["lstm_step"],
    "7.5": ["certified_radius"],
    "7.6": ["gram_bound"],
}
LONG, ALIKE = 10, 0.84  # statements of at least so many words of code; how much of two must agree, of 1


def words_of(node: ast.AST) -> list[str]:
    """An expression as a list of words in which every name is the same: what is done, not what it is called."""
    if isinstance(node, ast.Name):
        return ["_"]
    if isinstance(node, ast.Constant):
        return [repr(node.value)]
    if isinstance(node, ast.Attribute):
        module = isinstance(node.value, ast.Name) and node.value.id in ("torch", "F", "math", "nn", "np", "self")
        return [*([] if module else words_of(node.value)), "." + node.attr]
    if isinstance(node, ast.expr_context):
        return []
    name = (node.arg or "**") if isinstance(node, ast.keyword) else type(node).__name__
    return [name, *(word for child in ast.iter_child_nodes(node) for word in words_of(child))]


def expressions(code: str) -> list[list[str]]:
    """All expressions in a piece of code; none if it is no Python."""
    try:
        tree = ast.parse(textwrap.dedent(code))
    except SyntaxError:
        return []
    return [words_of(node) for node in ast.walk(tree) if isinstance(node, ast.expr)]


def long_statements(code: str) -> dict[str, list[str]]:
    """What the statements of a solution compute, if it is long enough to be recognised."""
    found = {}
    for node in ast.walk(ast.parse(code)):
        value = getattr(node, "value", None)
        if isinstance(node, ast.Assign | ast.Return | ast.Expr) and value is not None:
            for part in value.elts if isinstance(value, ast.Tuple) else [value]:
                if len(words := words_of(part)) >= LONG:
                    found[ast.unparse(part)] = words
    return found


def shown(cells: list[NotebookNode], names: dict) -> Iterator[tuple[str, str]]:
    """Where and what code a reader of these cells sees: cells, the sources that they show, and code inside texts."""
    for cell in cells:
        if cell.cell_type == "markdown":
            for code in re.findall(r"```python\n(.*?)```|`([^`\n]+)`", cell.source, re.DOTALL):
                yield cell.id, "".join(code)
        elif not is_hole(cell):
            yield cell.id, cell.source
            for name in shown_sources(cell):
                source = inspect.getsource(eval(name, names))
                yield f"{cell.id}, {name}", source


def shown_sources(cell: NotebookNode) -> list[str]:
    calls = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
    return [ast.unparse(a) for c in calls if getattr(c.func, "id", "") == "show_source" for a in c.args]


def alike(words: list[str], others: list[str]) -> bool:
    near = 0.6 < len(others) / len(words) < 1.6
    return near and difflib.SequenceMatcher(None, words, others, autojunk=False).ratio() >= ALIKE


def answers_above(nb: NotebookNode, solutions: dict[str, str], names: dict) -> Iterator[str]:
    """Every exercise of a twin whose answer, or a good part of it, can be read above it."""
    for i, hole in enumerate(nb.cells):
        if not is_hole(hole):
            continue
        id = hole.metadata.nbgrader.grade_id.removeprefix("solve-").replace("-", ".")
        first = max(j for j in range(i) if "### Exercise" in nb.cells[j].source)
        for cell in nb.cells[:first]:
            sources = shown_sources(cell) if cell.cell_type == "code" and not is_hole(cell) else []
            for name in sources:
                if set(name.split(".")) & set(SOURCES.get(id, [])):
                    yield f"{id}: {name} is shown in {cell.id}"
        statements = long_statements(solutions[hole.id])
        for place, code in shown(nb.cells[:first], names):
            for words in expressions(code):
                yield from (f"{id}: {text}, as in {place}" for text, own in statements.items() if alike(own, words))


@pytest.mark.parametrize("lecture", LECTURES, ids=lambda path: path.stem)
def test_no_answer_stands_above_its_question(lecture: Path) -> None:
    cells, names = nbformat.read(lecture, as_version=4).cells, {}
    solutions = {cell.id: cell.source for cell in cells}
    with contextlib.chdir(exercises.NOTEBOOKS):
        exec(solutions["setup"], names)
    for cell in cells:
        imports = ast.parse(cell.source).body if cell.cell_type == "code" else []
        exec("\n".join(ast.unparse(line) for line in imports if isinstance(line, ast.Import | ast.ImportFrom)), names)
    found = sorted(set(answers_above(twin(lecture), solutions, names)))
    assert not found, "\n".join(found)


def test_an_answer_above_its_question_is_found() -> None:
    new = nbformat.v4
    hole = new.new_code_cell(f"def f(W):\n    {exercises.STUB}", id="solve-5-1")
    hole.metadata = nbformat.from_dict({"nbgrader": {"solution": True, "grade_id": "solve-5-1"}})
    solution = {"solve-5-1": "def f(W):\n    return (W @ W.T).square().sum(dim=1).sqrt().max()"}
    for above, expected in [
        (new.new_code_cell("biggest = (A @ A.T).square().sum(dim=1).sqrt().max()", id="cell"), True),
        (new.new_markdown_cell("Try `(K @ K.T).square().sum(dim=1).sqrt().max()`.", id="hint"), True),
        (new.new_code_cell("show_source(training.hinge_loss)", id="source"), True),
        (new.new_code_cell("biggest = (A @ A.T).max()", id="cell"), False),
    ]:
        nb = new.new_notebook(cells=[above, new.new_markdown_cell("### Exercise 5.1", id="ex"), hole])
        found = list(answers_above(nb, solution, {"training": training}))
        assert bool(found) == expected, found


# ---- what is stored, and the list of exercises


@pytest.mark.parametrize("lecture", LECTURES, ids=lambda path: path.stem)
def test_nothing_of_the_lecture_is_missing_but_its_long_computations(lecture: Path) -> None:
    cells, mine = nbformat.read(lecture, as_version=4).cells, {cell.id: cell for cell in twin(lecture).cells}
    text = "\n".join(cell.source for cell in mine.values())
    ids = {cell.id for cell in cells}
    links = re.findall(r"\]\(\.\./([^)#]+)#cell-id=([^)]+)\)", text)
    assert all(name == lecture.name and id in ids for name, id in links)
    heavy = [cell for cell in cells if "heavy" in cell.metadata.get("tags", []) and cell.cell_type == "code"]
    for cell in cells:
        if "lecturer" not in cell.metadata.get("tags", []) and cell not in heavy:
            assert cell.id in mine, f"{cell.id} is left out"
    assert bool(links) == bool(heavy)
    for cell in heavy:
        assert f'"{cell.id}"' in text or not cell.outputs, f"{cell.id}: its outputs are not shown"


@pytest.mark.parametrize("lecture", LECTURES, ids=lambda path: path.stem)
def test_the_list_at_the_top_has_every_exercise(lecture: Path) -> None:
    nb = twin(lecture)
    headings = re.findall(r"^### Exercise (.+?) · .+? · (\d+) min", "\n".join(c.source for c in nb.cells), re.MULTILINE)
    rows = re.findall(r"^\| (\d\.\d.*?) \| [●○]{3} \| (\d+) \|$", nb.cells[0].source, re.MULTILINE)
    assert rows == headings and len(rows) == sum(map(is_hole, nb.cells))
    assert f"| together | | {sum(int(minutes) for _, minutes in rows)} |" in nb.cells[0].source


def test_stored_results_are_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    monkeypatch.setattr(stored, "display", lambda data, metadata, raw: shown.append((data, metadata)))
    stored.show_stored("03_power_iteration.ipynb", "fig9-figure")
    alts = [metadata["image/png"]["alt"] for data, metadata in shown if "image/png" in data]
    assert len(alts) == 1 and alts[0].startswith("True norm")
    assert "largest after update 20" in capsys.readouterr().out
    stored.show_stored("00_start_here.ipynb", "hook-explore")
    assert "image/png" in shown[1][0] and not any("widget" in kind for data, _ in shown for kind in data)
    with pytest.raises(ValueError, match="has no cell called fig-nine"):
        stored.show_stored("03_power_iteration.ipynb", "fig9-figure", "fig-nine")
    with pytest.raises(FileNotFoundError, match="99_none"):
        stored.show_stored("99_none.ipynb", "fig9-figure")
