"""What the documents say is so: commands, code, options, links, names of files."""

from __future__ import annotations

import ast
import importlib.util
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import click
import pytest

import ptychon
from ptychon.__main__ import main
from ptychon.cli.main import cli
from ptychon.cli.options import engine_options
from ptychon.engines import options, registry

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def blocks(language: str, text: str = README) -> list[str]:
    """Fenced blocks of a page, indented ones too."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def commands() -> dict[str, click.Command]:
    """Every command there is, by name."""
    with click.Context(cli) as context:
        found = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


@pytest.fixture
def run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sketched: None,
) -> Callable[..., str]:
    """A function that runs a Python program in an empty folder, as `python PROGRAM ARGUMENTS` does,
    but in this process; what it printed.
    """
    monkeypatch.chdir(tmp_path)

    def program(path: str | Path, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [str(path), *arguments])
        runpy.run_path(str(path), run_name="__main__")
        return capsys.readouterr().out

    return program


def test_readmes_two_commands_are_one_line_each_and_ci_runs_the_second() -> None:
    lines = [
        line for block in blocks("sh") for line in block.splitlines() if "python3 -m venv" in line
    ]
    assert len(lines) == 2
    assert lines[0].endswith("&& .venv/bin/ptychon demo")
    assert lines[1] in [
        line.strip() for line in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    ]


def test_readmes_python_runs(run: Callable[..., str], tmp_path: Path) -> None:
    code = "".join(blocks("python"))
    small = re.sub(r"passes=\d+", "passes=2", code).replace("raster(15,", "raster(4,")
    assert small.count("passes=2") == 3
    assert "raster(4," in small
    (tmp_path / "tour.py").write_text(small, encoding="utf-8")
    run("tour.py")
    assert {"result.h5", "result.png"} <= {p.name for p in tmp_path.iterdir()}


def test_example_of_error_bars_runs(run: Callable[..., str], tmp_path: Path) -> None:
    for more in ([], ["--known-probe"]):
        program = ROOT / "examples" / "error_bars.py"
        assert "68.3%" in run(program, "--points=3", "--passes=3", *more)
    assert (tmp_path / "error_bars.png").exists()


def test_example_of_a_file_runs(run: Callable[..., str], tmp_path: Path) -> None:
    from ptychon.io import write_dataset
    from ptychon.simulation.phantoms import complex_object, texture
    from ptychon.simulation.probes import defocused_aperture
    from ptychon.simulation.scan import raster
    from ptychon.simulation.simulate import simulate

    truth = complex_object(texture((48, 48)), texture((48, 48), 1))
    probe = defocused_aperture((16, 16), radius=5, defocus=4)
    scan = simulate(truth, probe, raster(4, 4), noise="poisson", mean_counts=1e5).dataset
    write_dataset(tmp_path / "scan.cxi", scan)
    program = ROOT / "examples" / "reconstruct_file.py"
    assert "R 0." in run(program, "scan.cxi", "--passes=2")
    out = run(program, "scan.cxi", "--passes=2", "--engine=ep", "--start=scan_rpie.h5")
    assert "median standard deviation" in out
    assert {"scan_rpie.png", "scan_ep.h5"} <= {p.name for p in tmp_path.iterdir()}


def test_example_of_an_engine_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a program of its own; and some of the tests that it inherits, all of which
    tests/engines/test_kit.py runs for our engines.
    """
    program = ROOT / "examples" / "my_engine.py"
    assert len(program.read_text(encoding="utf-8").splitlines()) <= 60
    small = (
        program.read_text(encoding="utf-8")
        .replace("passes=30", "passes=2")
        .replace("raster(9,", "raster(4,")
    )
    (tmp_path / "my_engine.py").write_text(small, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "my_engine.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["epie", "fading"]
    spec = importlib.util.spec_from_file_location("my_engine", program)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "my_engine", module)
    spec.loader.exec_module(module)
    inherited = module.TestFading()
    inherited.test_it_is_an_engine()
    inherited.test_options_are_documented()
    inherited.test_the_misfit_falls()


def test_every_example_is_run_here() -> None:
    assert [p.name for p in EXAMPLES] == ["error_bars.py", "my_engine.py", "reconstruct_file.py"]


def test_command_lines_are_understood() -> None:
    """Parsed as the command would, without running anything."""
    text = "\n".join(p.read_text(encoding="utf-8") for p in [*PAGES, *EXAMPLES])
    lines = [line.strip() for line in text.splitlines() if re.match(r" *ptychon [a-z]", line)]
    assert len(lines) >= 6
    for line in lines:
        name, *arguments = shlex.split(line, comments=True)[1:]
        with commands()[name].make_context(name, arguments) as context:
            if "settings" in context.params:
                engine_options(context.params["engine"], context.params["settings"])


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.name != "CONTRIBUTING.md"], ids=lambda p: p.name
)
def test_every_flag_exists(page: Path) -> None:
    known = {"--version", "--help"} | {
        flag
        for command in commands().values()
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for flag in [*parameter.opts, *parameter.secondary_opts]
    }
    scripts = "\n".join(p.read_text(encoding="utf-8") for p in [*EXAMPLES, *EXPERIMENTS])
    known |= set(re.findall(r'add_argument\(\s*"(--[\w-]+)"', scripts))
    # blocks of bash show other programs
    text = re.sub(r"```bash\n.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    said = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text))
    assert said <= known, f"{page.name} mentions {said - known}"


def test_options_of_engines_are_those_documented() -> None:
    text = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")
    lists = re.findall(r"^Options of `(\w+)`:([^.]*)\.", text, re.MULTILINE)
    said = {name: re.findall(r"`(\w+)`", listed) for name, listed in lists}
    assert said == {name: list(options(cls)) for name, cls in registry.items()}


def test_the_table_has_every_engine() -> None:
    page = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(registry)


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 130


def test_readmes_tour_runs_line_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sketched: None
) -> None:
    """In order, on a smaller scan than the demonstration's."""
    monkeypatch.chdir(tmp_path)
    tour = next(block for block in blocks("sh") if "ptychon inspect" in block)
    (tmp_path / "ptychon_demo").mkdir()
    scan = "simulate ptychon_demo/scan.cxi --points 5 --frame 24 --counts 1e5"
    for line in [f"ptychon {scan}", *tour.splitlines()]:
        assert main(shlex.split(line)[1:]) == 0, line
    made = {p.name for p in tmp_path.iterdir()}
    assert {"scan_rpie.h5", "scan_rpie.png", "scan_ep.h5", "scan_ep_report.html"} <= made


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    for target in targets:
        assert target.startswith("https://") or (page.parent / target).exists(), (
            f"{page.name}: {target}"
        )


def tracked() -> list[Path]:
    """Files under version control; where there is none (a source archive), those of the package and
    around it.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode == 0 and listed.stdout:
        return [
            ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()
        ]
    return [
        p
        for part in ("src", "tests", "docs", "examples", "profiling")
        for p in (ROOT / part).rglob("*")
        if p.is_file()
    ]


def test_no_file_names_a_machines_folders() -> None:
    places = re.compile(rb"(?:^|[^A-Za-z0-9_.])/(?:work|tmp|farm|root|home)/", re.MULTILINE)
    binary = {".png", ".npz", ".h5", ".cxi"}
    found = [
        str(p.relative_to(ROOT))
        for p in tracked()
        if p.suffix not in binary and places.search(p.read_bytes())
    ]
    assert found == []


def test_pictures_are_small() -> None:
    pictures = [p for p in tracked() if p.suffix == ".png"]
    assert pictures
    assert all(p.stat().st_size < 400_000 for p in pictures)


def test_what_is_imported_is_declared() -> None:
    """A fresh environment has what the package asks for, and nothing else."""
    used = set()
    for path in (ROOT / "src").rglob("*.py"):
        if path.parent.name == "peers":  # run in other environments
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                used |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                used.add(node.module.split(".")[0])
    used = {name.replace("_", "-") for name in used - set(sys.stdlib_module_names) - {"ptychon"}}
    needed = {re.split(r"[<>=\[;~ ]", text)[0] for text in PROJECT["dependencies"]}
    # numba is a front of llvmlite, of which each of its versions needs one
    packages = {"yaml": "pyyaml", "pydantic-core": "pydantic", "llvmlite": "numba", "PIL": "pillow"}
    used = {packages.get(name, name) for name in used}
    extras = ("cupy", "cupyx", "mpi4py", "rsciio", "fabio", "IPython", "ipywidgets", "dask", "zarr")
    assert used <= needed | set(extras)


def test_versions_agree() -> None:
    assert ptychon.__version__ == PROJECT["version"]
    assert f"## [{ptychon.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
