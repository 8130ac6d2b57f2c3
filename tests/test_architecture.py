"""The rules of the house: who may import whom, how long a file may be, and no traces of anyone's machine."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OUTSIDE_TOOLS = ("prefect", "mlflow", "dvc", "great_expectations", "lm_eval")
UNIX = ("fcntl", "resource")
DISTRIBUTIONS = {"yaml": "pyyaml"}  # by the module, where their names differ
MAX_LINES = 350
MAX_TOP_MODULES = 8


def modules(package: str) -> dict[str, Path]:
    """Dotted names of a package's modules, with their files; not those that a registry holds copies of."""
    files = sorted(file for file in (ROOT / package).rglob("*.py") if "mlruns" not in file.parts)
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imports(file: Path) -> set[str]:
    """Every dotted name that a file imports, at its top or inside functions; `from a import b` counts as a and a.b."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} imports relatively; write the whole name"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def roots(file: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(file)}


def run_python(code: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_library_imports_where_the_outside_tools_and_unix_are_absent(tmp_path):
    """Where the library finds neither `fcntl` nor `resource`, as on Windows, it writes files and holds locks too."""
    forbidden = (*OUTSIDE_TOOLS, "integrations", "tasks", "flows")
    code = (
        "import builtins, importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({forbidden!r}))\n"  # None makes `import` fail and find_spec say absent
        "real = builtins.__import__\n"
        "def import_without_unix(name, globals=None, *rest, **named):\n"
        f"    if name in {UNIX!r} and (globals or {{}}).get('__name__', '').startswith('factpatch'):\n"
        "        raise ImportError(name)\n"
        "    return real(name, globals, *rest, **named)\n"
        "builtins.__import__ = import_without_unix\n"
        "for name in sys.argv[2:]: importlib.import_module(name)\n"
        "from pathlib import Path\n"
        "from factpatch.files import new_folder, write_json\n"
        "from factpatch.release.registry import locked\n"
        "place = Path(sys.argv[1])\n"
        "with locked(place / 'x.lock', 'a test'), new_folder(place / 'out') as folder:\n"
        "    write_json(folder / 'a.json', 1)\n"
        "assert (place / 'out' / 'a.json').read_text() == '1\\n'\n"
    )
    run_python(code, str(tmp_path), *modules("factpatch"))


@pytest.mark.parametrize(
    ("package", "extras"),
    [
        ("factpatch", ("bitsandbytes", "awq")),
        ("integrations", ("release",)),
        ("tasks", ("release",)),
        ("flows", ("release",)),
    ],
)
def test_what_is_imported_is_named_and_pinned(package, extras):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(one for extra in extras for one in project["optional-dependencies"][extra])]
    named = {re.split(r"[^\w-]", one)[0].lower().replace("-", "_") for one in asked}
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower().replace("-", "_")
    own = {"factpatch", "integrations", "tasks", "flows", *sys.stdlib_module_names}
    imported = set().union(*(roots(file) for file in modules(package).values())) - own
    assert {DISTRIBUTIONS.get(name, name) for name in imported} <= named
    assert not {name for name in named if f"\n{name}==" not in pins}


def test_the_command_line_starts_without_torch():
    """`factpatch --help` answers at once; only `flows.release`, which chains the steps, loads their libraries."""
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, f'importing {name} loads torch'\n"
    )
    run_python(code, *(name for name in modules("flows") if name != "flows.release"))


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("factpatch", {*OUTSIDE_TOOLS, "pandas", "integrations", "tasks", "flows", "tests"}),
        ("integrations", {"tasks", "flows", "tests"}),
        ("tasks", {"flows", "tests"}),
        ("flows", {"torch", "transformers", "safetensors", "tests"}),
    ],
)
def test_packages_import_downwards(package, forbidden):
    wrong = {
        name: sorted(roots(file) & forbidden) for name, file in modules(package).items() if roots(file) & forbidden
    }
    assert not wrong


def test_tasks_do_not_import_each_other():
    """What steps share of outside tools is in `integrations`, which knows no step."""
    assert not {name for name, file in modules("tasks").items() if "tasks" in roots(file)}


def test_library_imports_run_one_way():
    files = modules("factpatch")
    graph = {name: (imports(file) & files.keys()) - {name} for name, file in files.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_the_page_of_the_architecture_tells_the_packages_and_their_imports():
    """The table in docs/architecture.md names every package of the library, and exactly what it imports."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `(\w+)` \| .* \|([\w, ]*)\|$", page.split("\n## Packages\n")[1].split("\n## ")[0], re.MULTILINE
    )
    told = {name: {part.strip() for part in imported.split(",") if part.strip()} for name, imported in rows}
    found: dict[str, set[str]] = {file.parent.name: set() for file in (ROOT / "factpatch").glob("*/__init__.py")}
    for name, file in modules("factpatch").items():
        if (package := name.split(".")[1:2]) and package[0] in found:
            others = {other.split(".")[1] for other in imports(file) if other.startswith("factpatch.")}
            found[package[0]] |= others & found.keys() - {package[0]}
    assert told == found
    TopologicalSorter(found).prepare()  # raises CycleError, which names the circle
    arrows = re.findall(r"^    (\w+) --> (.*)$", page, re.MULTILINE)
    drawn = {(name, other.strip()) for name, others in arrows for other in others.split("&")}
    assert not {(name, other) for name, other in drawn if {name, other} <= found.keys() and other not in found[name]}
    assert {name for arrow in drawn for name in arrow} >= found.keys()


def test_the_top_of_the_library_is_packages_and_a_few_modules():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    names = {file.stem for file in (ROOT / "factpatch").glob("*.py")} - {"__init__"}
    assert len(names) <= MAX_TOP_MODULES
    assert not {name for name in names if f"`{name}`" not in page}


def test_files_are_short():
    files = [
        file
        for folder in ("factpatch", "integrations", "tasks", "flows", "data", "tests", "benchmarks")
        for file in modules(folder).values()
    ]
    lengths = {str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    assert not {name: length for name, length in lengths.items() if length > MAX_LINES}


@pytest.mark.skipif(not shutil.which("git") or not (ROOT / ".git").exists(), reason="not a git checkout")
def test_no_file_names_a_folder_of_somebodys_machine():
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    names = [name for name in listing.stdout.decode().split("\0") if name and (ROOT / name).is_file()]
    homes = re.compile(
        rb"(?<![\w.~-])(?:/home|/Users|/root|" + re.escape(str(ROOT)).encode() + rb")/\w|[A-Z]:\\Users\\"
    )
    assert names
    assert not [name for name in names if homes.search((ROOT / name).read_bytes())]
