"""The exercise notebooks in a student's hands: scratch variables kill no cell, and no answer stands above its question."""

import ast
import builtins
import symtable
from functools import cache
from pathlib import Path

import pytest
from nbformat import NotebookNode

from course_utils import exercises

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
