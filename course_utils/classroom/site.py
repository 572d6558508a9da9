"""Build the course's website: ``python -m course_utils site`` (then open ``site/index.html`` in a browser).

Pages are made from the stored outputs; nothing is executed, and no page asks another host for anything. The folder can
be put on any static host. Solutions and the lecturer's notes are left out unless ``--solutions`` or ``--notes`` is given.
``--frames`` first runs the lectures, once, and draws their interactive figures for the values of their controls: these
figures then move on the page, without a kernel.
"""

import argparse
import base64
import hashlib
import html
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from PIL import Image

from . import frames
from .exercises import exercise_notebook
from .slides import SOLUTION, copy_mathjax, deck

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = Path(__file__).with_name("site")
MAX_SITE = 60_000_000  # bytes of the whole site, so that it fits any host and any patience
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)\s]*)?\)")
LECTURE_LINK = re.compile(r'href="([^":/]+)\.ipynb')
CELL_LINK = re.compile(r"\[([^\]]+)\]\(\.\./([^)]+)\.ipynb#cell-id=([^)]+)\)")
MARK = "Written by python -m course_utils site, which will write this folder anew.\n"


@dataclass
class Options:
    """What a site shows. repository: owner/name on GitHub, for links that open a lecture elsewhere."""

    notes: bool = False
    solutions: bool = False
    repository: str = ""


def published(nb: NotebookNode, options: Options) -> NotebookNode:
    """The lecture as readers may have it: without the lecturer's notes and the solutions, unless the options allow them.

    Where a solution is left out, so are its outputs and those of the exercise's check, which tell it.
    """
    nb.cells = [cell for cell in nb.cells if options.notes or "lecturer" not in cell.metadata.get("tags", [])]
    for cell in nb.cells if not options.solutions else []:
        graded = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "code" and (graded.get("solution") or graded.get("grade") or SOLUTION.search(cell.source)):
            cell.source, cell.outputs = SOLUTION.sub(r"\1...", cell.source), []
    return nb


def page(nb: NotebookNode, name: str, options: Options, recorded: dict[str, dict], figures: Path) -> NotebookNode:
    """The notebook from which Sphinx makes the lecture's page.

    nb: as ``published`` gives it. recorded: its interactive figures, by cell and number, as ``frames.figures`` finds
    them. figures: the folder into which the stored pictures are written.
    """
    for cell in nb.cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "markdown" and "lecturer" in tags:
            cell.source = f'<div class="lecturer">\n\n{cell.source}\n\n</div>'
        if cell.cell_type != "code":
            continue
        if cell.id == "setup":
            cell.metadata["tags"] = [*tags, "hide-input"]
        shown: list[NotebookNode] = []
        number = 0
        for output in cell.outputs:
            if note := _controls(output):
                figure = f"{cell.id}-{number}"
                moving = _moving(recorded[figure], f"{name}/{figure}") if figure in recorded else ""
                shown[-2:] = [_html(moving or _still(*shown[-2:], note))]
                number += 1
            else:
                shown.append(_web(output, figures, ".."))
        cell.outputs = shown
    heavy = [cell for cell in nb.cells if cell.cell_type == "code" and "heavy" in cell.metadata.get("tags", [])]
    for cell in heavy:  # the exercises point at these
        place = nbformat.v4.new_markdown_cell(f'<span id="cell-{cell.id}"></span>', id=f"at-{cell.id}"[:64])
        nb.cells.insert(nb.cells.index(cell), place)
    title, text = nb.cells[0].source.split("\n", 1)
    nb.cells[0].source = f"{title}\n\n{_links(name, options)}\n{text}"
    return nb


def exercise_page(exercise: NotebookNode, lecture: NotebookNode, name: str, figures: Path) -> NotebookNode:
    """The notebook from which Sphinx makes the exercises' page; what it shows of the lecture's stored outputs is there.

    lecture: as ``published`` gives it, called ``name``. figures: the folder into which the stored pictures are written.
    """
    outputs = {cell.id: cell.outputs for cell in lecture.cells if cell.cell_type == "code"}
    for cell in exercise.cells:
        if cell.cell_type == "markdown":
            cell.source = CELL_LINK.sub(r'<a href="../\2.html#cell-\3">\1</a>', cell.source)
        elif cell.source.startswith("show_stored("):
            stored = [out for id in re.findall(r'"([^"]+)"', cell.source)[1:] for out in outputs[id]]
            cell.outputs = [_web(output, figures, "../..") for output in stored if not _controls(output)]
        if cell.id == "setup":
            cell.metadata["tags"] = ["hide-input"]
    note, title = exercise.cells[:2]
    link = f'<a href="../../downloads/exercises/{name}.ipynb" download>This notebook</a>'
    note.source += f"\n\n{link} · [how to run it](../../index.md#open-it-elsewhere)"
    title.source = title.source.replace("\n", ": exercises\n", 1)
    exercise.cells[:2] = [title, note]  # a page begins with its title
    return exercise


def _controls(output: NotebookNode) -> str:
    """The names of the controls, if the output is those of an interactive figure; nothing otherwise."""
    found = re.match(r"\[interactive: (.*) - run", output.get("data", {}).get("text/plain", ""))
    return found[1] if found else ""


def _html(text: str) -> NotebookNode:
    return nbformat.v4.new_output("display_data", {"text/html": text})


def _web(output: NotebookNode, figures: Path, up: str) -> NotebookNode:
    """The output as a page shows it, ``up`` being the way to the site's top: a picture lies in a file of ``figures``."""
    if "image/png" not in output.get("data", {}):
        return output
    content = base64.b64decode(output.data["image/png"])
    path = figures / f"{hashlib.sha256(content).hexdigest()[:16]}.webp"
    with Image.open(io.BytesIO(content)) as picture:
        picture.save(path, "webp", lossless=True, quality=50, method=4)
        alt = output.metadata.get("image/png", {}).get("alt", "")
        return _html(_tag(f"{up}/figures/{path.name}", alt, picture.size))


def _tag(source: str, alt: str, size: tuple[int, int]) -> str:
    return f'<img src="{source}" alt="{html.escape(alt)}" width="{size[0]}" height="{size[1]}" loading="lazy">'


def _still(picture: NotebookNode, text: NotebookNode, note: str) -> str:
    """An interactive figure without frames: its picture, its text, and what a running notebook adds."""
    return (
        f'<div class="explore">{picture.data["text/html"]}<pre>{html.escape(text.data["text/plain"])}</pre>'
        f'<p class="note">In a running notebook this figure has controls: {html.escape(note)}.</p></div>'
    )


def _moving(figure: dict, name: str) -> str:
    """An interactive figure that frames.js moves: picture and text for the defaults, and the controls."""
    first = 0
    for control in figure["controls"]:
        first = first * len(control["values"]) + control["default"]
    parts = [_tag(f"../frames/{name.rpartition('/')[0]}/{figure['base']}", figure["alt"], figure["size"])]
    parts.append(f'<pre aria-live="polite">{html.escape(figure["texts"][first])}</pre>')
    for control in figure["controls"]:
        label, values, here = html.escape(control["label"]), control["values"], control["default"]
        if control["kind"] == "box":
            parts.append(f'<label class="box"><input type="checkbox"{" checked" * here}><span>{label}</span></label>')
        else:
            value = html.escape(values[here])
            parts.append(
                f'<label><span>{label}</span><input type="range" min="0" max="{len(values) - 1}" step="1" value="{here}"'
                f' aria-valuetext="{value}" autocomplete="off"><output>{value}</output></label>'
            )
    if fewer := [c["label"] for c in figure["controls"] if len(c["values"]) < c["of"]]:
        parts.append(f'<p class="note">In the notebook there are finer steps of: {html.escape(", ".join(fewer))}.</p>')
    return f'<div class="explore" data-frames="../frames/{name}">{"".join(parts)}</div>'


def _links(name: str, options: Options) -> str:
    """The line below a lecture's title: its other forms, and where it can be run."""
    here = [
        f'<a href="../slides/{name}.html">slides</a>',
        f"[exercises](exercises/{name}.ipynb)",
        f'<a href="../downloads/{name}.ipynb" download>notebook</a>',
        "[how to run it](../index.md#open-it-elsewhere)",
    ]
    if options.repository:
        path = f"notebooks/{name}.ipynb"
        here += [
            f"[Colab](https://colab.research.google.com/github/{options.repository}/blob/HEAD/{path})",
            f"[Binder](https://mybinder.org/v2/gh/{options.repository}/HEAD?urlpath=lab/tree/{path})",
        ]
    return " · ".join(here)


def write_sources(source: Path, out: Path, lectures: list[Path], options: Options, recorded: Path) -> None:
    """Write what Sphinx reads into ``source``, and the decks, pictures, downloads and frames into ``out``."""
    for folder in (source / "notebooks/exercises", out / "figures", out / "downloads/exercises", out / "slides"):
        folder.mkdir(parents=True)
    for path in lectures:
        name, place = path.stem, recorded / path.stem
        nb = published(nbformat.read(path, as_version=4), options)
        nbformat.write(nb, out / "downloads" / path.name)
        slides = LECTURE_LINK.sub(r'href="../notebooks/\1.html', deck(nb, options.solutions))
        (out / "slides" / f"{name}.html").write_text(slides, encoding="utf-8")
        figures = frames.figures(place) if frames.is_complete(path, recorded) else {}
        if figures:
            copy_frames(figures, place, out / "frames" / name)
        exercise = exercise_notebook(path)
        nbformat.write(exercise, out / "downloads/exercises" / path.name)
        exercise = exercise_page(exercise, nb, name, out / "figures")
        nbformat.write(exercise, source / "notebooks/exercises" / path.name)
        nbformat.write(page(nb, name, options, figures, out / "figures"), source / "notebooks" / path.name)
    copy_mathjax(out / "slides/mathjax")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    parts = {"Lectures": "notebooks/", "Exercises": "notebooks/exercises/"}
    trees = [_tree(caption, [folder + path.stem for path in lectures]) for caption, folder in parts.items()]
    _copy_linked(readme, Path(), source)
    about = sorted(str(path.relative_to(source).with_suffix("").as_posix()) for path in source.rglob("*.md"))
    (source / "index.md").write_text("\n".join([readme, *trees, _tree("About", about)]), encoding="utf-8")


def _tree(caption: str, pages: list[str]) -> str:
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""])


def _copy_linked(text: str, folder: Path, source: Path) -> None:
    """Copy the repository's files to which a text in ``folder`` links, and those to which these link in turn."""
    for link in LINK.findall(text):
        path = folder / link
        if (ROOT / path).is_file() and path.suffix != ".ipynb" and not (source / path).exists():
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, source / path)
            if path.suffix == ".md":
                _copy_linked((ROOT / path).read_text(encoding="utf-8"), path.parent, source)


def copy_frames(figures: dict[str, dict], recorded: Path, out: Path) -> None:
    """Copy the pictures of these figures, and write for each the script that tells which belongs to which values."""
    out.mkdir(parents=True)
    for name, figure in figures.items():
        for picture in {figure["base"], *figure["pictures"]}:
            shutil.copyfile(recorded / picture, out / picture)
        data = {"values": [control["values"] for control in figure["controls"]]}
        data |= {part: figure[part] for part in ("pictures", "texts")}
        key = json.dumps(f"../frames/{out.name}/{name}")
        (out / f"{name}.js").write_text(f"courseFrames[{key}] = {json.dumps(data)};\n", encoding="utf-8")


def build(out: Path, lectures: list[Path], options: Options, recorded: Path) -> int:
    """Write the site into ``out``, in place of an earlier one; return its size in bytes.

    recorded: the folder of the frames. Raises FileExistsError if ``out`` holds something else, RuntimeError, with what
    Sphinx says, if a page cannot be made or a link leads nowhere.
    """
    if out.exists() and any(out.iterdir()) and not (out / ".nojekyll").is_file():
        raise FileExistsError(f"{out} is not empty, and holds no site: name another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".site-") as folder:
        source, fresh, trees = (Path(folder) / name for name in ("source", "site", "trees"))
        source.mkdir()
        write_sources(source, fresh, lectures, options, recorded)
        command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-c", str(SETTINGS)]
        done = subprocess.run([*command, "-d", str(trees), str(source), str(fresh)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"Sphinx says:\n{done.stderr.strip()}")
        (fresh / "_static/scripts/fontawesome.js").write_text("")  # 1.6 MB: the theme's font draws these icons as well
        (fresh / ".nojekyll").write_text(MARK, encoding="utf-8")  # for GitHub: _static is a folder like any other
        for left in (".buildinfo", "objects.inv"):
            (fresh / left).unlink(missing_ok=True)
        if out.exists():
            shutil.rmtree(out)
        fresh.rename(out)
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def main(arguments: list[str]) -> int:
    """Build the site that the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m course_utils site", description="Build the website.")
    add = parser.add_argument
    add("out", nargs="?", type=Path, default=ROOT / "site", help="folder for the site (default: site)")
    add("--notes", action="store_true", help="show the lecturer's notes")
    add("--solutions", action="store_true", help="show the solutions of the exercises")
    add("--repository", default="", metavar="OWNER/NAME", help="on GitHub: adds links that open Colab and Binder")
    add(
        "--frames", nargs="*", metavar="LECTURE", help="first draw the figures of these lectures, such as 03, or of all"
    )
    add(
        "--frames-folder",
        type=Path,
        default=ROOT / "frames",
        metavar="FOLDER",
        help="to keep them in (default: frames)",
    )
    add("--most", type=int, default=frames.MOST, help="frames of a figure, at most (default: %(default)s)")
    add("--processes", type=int, default=2, help="lectures to run side by side (default: %(default)s)")
    options = parser.parse_args(arguments)
    lectures = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    try:
        if options.frames is not None:
            wanted = [path for path in lectures if path.name.startswith(tuple(options.frames) or ("",))]
            if not wanted:
                parser.error(f"no lecture in notebooks/ begins with {' or '.join(options.frames)}")
            for line in frames.make(wanted, options.frames_folder, options.most, options.processes):
                print(line, flush=True)
        shown = Options(options.notes, options.solutions, options.repository)
        size = build(options.out.expanduser(), lectures, shown, options.frames_folder)
    except KeyboardInterrupt:
        print("interrupted; the frames that are made stay, and the same command goes on", file=sys.stderr)
        return 130
    except (OSError, RuntimeError, shutil.Error) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {options.out} ({size / 1e6:.0f} MB)")
    if size > MAX_SITE:
        print(f"warning: more than {MAX_SITE / 1e6:.0f} MB; --most makes fewer frames", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
