"""What is around the package: the page on an index, containers, recipes, workflows, the paper."""

from __future__ import annotations

import re
import tomllib
from importlib import util
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def portable() -> Any:
    pytest.importorskip("hatchling")
    spec = util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.portable


PAGE = """One [link](docs/a.md#b), one [outside](https://example.org).

![A picture](docs/p.png)
*Its caption,
in two lines.*

After, with *emphasis*.
"""


def test_the_page_of_an_index_has_no_relative_address(portable: Any) -> None:
    assert portable(PAGE, None, "1.2") == (
        "One link, one [outside](https://example.org).\n\nAfter, with *emphasis*.\n"
    )
    linked = portable(PAGE, "https://host/us", "1.2")
    assert "[link](https://host/us/blob/v1.2/docs/a.md#b)" in linked
    assert "![A picture](https://host/us/raw/v1.2/docs/p.png)" in linked
    assert "[outside](https://example.org)" in linked


def test_the_readme_loses_nothing_else(portable: Any) -> None:
    shown = portable(text("README.md"), PROJECT["urls"].get("Source"), PROJECT["version"])
    assert not re.search(r"\]\((?!https://)", shown)
    for kept in (r"^#+ [^\n]*$", r"^```.*?^```$"):
        found = [re.findall(kept, t, re.MULTILINE | re.DOTALL) for t in (text("README.md"), shown)]
        assert found[0] == found[1] != []


def test_the_workflow_runs_the_tests_where_people_are() -> None:
    flow = yaml.safe_load(text(".github/workflows/tests.yml"))
    jobs = flow["jobs"]
    matrix = jobs["tests"]["strategy"]["matrix"]
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    assert matrix["python"] == ["3.11", "3.12", "3.13", "3.14"]
    said = [c.rsplit(" ", 1)[1] for c in PROJECT["classifiers"] if "Python :: 3." in c]
    assert set(said) <= set(matrix["python"])
    assert "slow or not slow" in jobs["slow-tests"]["steps"][-1]["run"]
    assert flow[True]["schedule"]  # YAML takes a bare `on` for true
    for job in jobs.values():
        assert all(("uses" in step) != ("run" in step) for step in job["steps"])
        extras = [e for s in job["steps"] for e in re.findall(r"\.\[([\w,]+)\]", s.get("run", ""))]
        assert extras
        assert {e for found in extras for e in found.split(",")} <= set(
            PROJECT["optional-dependencies"]
        )


@pytest.mark.parametrize("name", ["wrong_result", "wish"])
def test_forms_of_issues_have_what_a_form_needs(name: str) -> None:
    form = yaml.safe_load(text(f".github/ISSUE_TEMPLATE/{name}.yml"))
    assert form["name"]
    assert form["description"]
    kinds = {"markdown", "textarea", "input", "dropdown", "checkboxes"}
    assert all(part["type"] in kinds and part["attributes"] for part in form["body"])
    ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert len(ids) == len(set(ids)) > 0


def test_the_conda_recipe_asks_for_what_the_package_asks_for() -> None:
    recipe = re.sub(r"\{%.*?%\}\n", "", text("recipe/meta.yaml"))
    recipe = yaml.safe_load(re.sub(r"\{\{ (\w+) \}\}", r"<\1>", recipe))
    other = {"matplotlib": "matplotlib-base"}
    ours = {re.match(r"[\w.-]+", d)[0]: d for d in PROJECT["dependencies"]}  # type: ignore[index]
    asked = {other.get(n, n): d.removeprefix(n) for n, d in ours.items()}
    run = dict(line.split(" ", 1) for line in recipe["requirements"]["run"])
    assert run == asked | {"python": PROJECT["requires-python"]}
    (entry,) = recipe["build"]["entry_points"]
    assert entry == f"ptychon = {PROJECT['scripts']['ptychon']}"
    assert f'version = "{PROJECT["version"]}"' in text("recipe/meta.yaml")


def test_containers_copy_what_the_build_needs() -> None:
    needed = {"pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "src"}
    docker = text("Dockerfile")
    copied = {
        w for line in re.findall(r"^COPY (.*) \S+$", docker, re.MULTILINE) for w in line.split()
    }
    assert copied == needed
    assert set(re.findall(r"^!(\S+)$", text(".dockerignore"), re.MULTILINE)) == needed
    files = text("apptainer.def").split("%files\n")[1].split("%post")[0]
    assert {line.split()[0] for line in files.splitlines() if line.strip()} == needed
    for page in (docker, text("apptainer.def")):
        (extras,) = re.findall(r"/opt/ptychon\[([\w,]+)\]", page)
        assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
        assert re.search(r"python:3\.\d+-slim", page)
    known = {"FROM", "COPY", "RUN", "ENV", "VOLUME", "WORKDIR", "ENTRYPOINT", "CMD"}
    lines = [line for line in docker.splitlines() if line and not line.startswith("#")]
    assert {line.split()[0] for line in lines} <= known


def test_the_paper_cites_what_it_lists() -> None:
    paper, listed = text("paper/paper.md"), text("paper/paper.bib")
    head = yaml.safe_load(paper.split("---")[1])
    assert {"title", "tags", "authors", "affiliations", "date", "bibliography"} <= set(head)
    assert set(re.findall(r"@(\w+)", paper.split("---", 2)[2])) == set(
        re.findall(r"^@\w+\{(\w+),", listed, re.MULTILINE)
    )
    assert 250 < len(paper.split()) < 1500
