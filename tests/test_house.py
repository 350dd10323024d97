"""The house rules of CONTRIBUTING.md that a machine can check, and proof that the checker sees a planted fault."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping, Set
from functools import cache
from pathlib import Path
from types import MappingProxyType

import jaxtyping
import pytest
import torch

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "sgi2v"
PRINTS = "cli/"  # the only room that prints and exits
PICKS_DEVICE = "device.py"  # the only file that names accelerators
MAX_LINES = 400
QUESTIONS = frozenset({"What", "How", "Whether", "Where", "Who", "Whose", "Whom", "Which", "When", "Why"})
ROOMS = (
    "errors lazy plugins",
    "checks files listing signatures writing",
    "scene scene_io images reference traj camera curves fitting records segmentation",
    "grid step solvers planning points attention taps alignment spectrum sparse sparse_product",
    "dragging cut_and_drag device migrations",
    "backbones",
    "controllers",
    "prompting exchange",
    "run video_tag clip_time clip_colour clip_files clip_pictures video provenance content_check",
    "light pace progress remarks shape latents sampling draw pipeline advice opening",
    "world",
    "evaluation",
    "training",
    "demo",
    "studio",
    "cli",
)
"""Files and folders of the package, from the lowest storey to the highest: nothing imports from above itself."""
MUTABLE_CALLS = frozenset(
    {"list", "dict", "set", "bytearray", "defaultdict", "OrderedDict", "Counter", "deque", "WeakKeyDictionary",
     "WeakValueDictionary", "local"}
)  # fmt: skip


def _name(node: ast.expr) -> str:
    """The last name of a dotted expression: `collections.deque` -> `deque`."""
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def _mutable(value: ast.expr | None) -> bool:
    if isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp):
        return True
    return isinstance(value, ast.Call) and _name(value.func) in MUTABLE_CALLS


def _targets(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.Assign):
        return node.targets
    return [node.target] if isinstance(node, ast.AnnAssign | ast.AugAssign) else []


def _shared_state(body: list[ast.stmt]) -> Iterator[tuple[int, str]]:
    """Mutable values assigned at module or class level: shared by every run and every user of the process."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.If | ast.Try | ast.With):
            yield from _shared_state(node.body)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and _mutable(node.value):
            names = [_name(target) for target in _targets(node)]
            if names not in (["__all__"], ["__slots__"]):
                yield node.lineno, f"{', '.join(names)} is mutable and shared by everybody"


def _keyword(call: ast.Call, name: str) -> object:
    return next((k.value.value for k in call.keywords if k.arg == name and isinstance(k.value, ast.Constant)), None)


def _in_call(path: str, node: ast.Call) -> Iterator[str]:
    name, text = _name(node.func), ast.unparse(node.func)
    attribute = isinstance(node.func, ast.Attribute)
    if name == "train" and attribute and not path.startswith("training/"):
        yield "switches a network to training mode outside training/"
    if name == "cuda" and attribute:
        yield f"names a device outside {PICKS_DEVICE}"
    if name in ("exit", "quit", "_exit") and not path.startswith(PRINTS):
        yield "exits in a library"
    if name == "inference_mode":
        yield "inference_mode: its tensors can never be optimised; use no_grad"
    if text == "torch.load" and _keyword(node, "weights_only") is not True:
        yield "torch.load without weights_only=True runs code from the file"
    if text in ("torch.jit.load", "pickle.load", "pickle.loads", "eval", "exec"):
        yield f"{text} runs code from a file"
    if _keyword(node, "allow_pickle") is True:
        yield "allow_pickle runs code from the file"
    if text == "setattr" and any(isinstance(a, ast.Constant) and a.value == "forward" for a in node.args):
        yield "assigns to forward"


def _in_import(path: str, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    names = [alias.name for alias in node.names]
    module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
    if "*" in names:
        yield "import *"
    places = f"{module} {' '.join(names)}"
    if path.startswith("controllers/") and "sgi2v.backbones." in f"{places}.".replace("backbones.base", ""):
        yield "a controller imports a backbone"
    if path.startswith("backbones/") and "sgi2v.controllers" in places:
        yield "a backbone imports a controller"


def _in_node(path: str, node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Call():
            yield from _in_call(path, node)
        case ast.Import() | ast.ImportFrom():
            yield from _in_import(path, node)
        case ast.Name(id="print") if not path.startswith(PRINTS):
            yield "print"
        case ast.Global():
            yield "global"
        case ast.ExceptHandler(type=None):
            yield "bare except"
        case ast.Constant(value=str(text)) if path != PICKS_DEVICE:
            if text.split(":")[0] in ("cuda", "mps"):
                yield f"names a device outside {PICKS_DEVICE}"
        case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
            for target in _targets(node):
                if isinstance(target, ast.Attribute) and target.attr in ("forward", "training"):
                    yield f"assigns to {target.attr}"


def faults(path: str, source: str) -> list[str]:
    """Every broken house rule in one file of the package; `path` is relative to the package."""
    tree = ast.parse(source)
    found = list(_shared_state(tree.body))
    found += [(getattr(node, "lineno", 1), fault) for node in ast.walk(tree) for fault in _in_node(path, node)]
    if not ast.get_docstring(tree):
        found.append((1, "does not open by saying what it is for"))
    if (lines := source.count("\n")) > MAX_LINES:
        found.append((lines, f"{lines} lines: too long to read in one sitting (at most {MAX_LINES})"))
    return [f"{path}:{line}: {fault}" for line, fault in sorted(set(found))]


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Those of the file, its classes and functions, and the texts below fields and constants."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        has_fields = isinstance(node, ast.Module | ast.ClassDef)
        for before, one in zip((None, *node.body), node.body, strict=False):
            match one:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    if before is None or (has_fields and isinstance(before, ast.Assign | ast.AnnAssign)):
                        yield one.lineno, text


def questions(path: str, source: str) -> list[str]:
    """Docstrings that begin like a question instead of naming a thing or a deed."""
    found = ((line, next(iter(text.split()), "").rstrip(",;:.?")) for line, text in _docstrings(ast.parse(source)))
    return [f"{path}:{line}: a docstring begins with {word!r}" for line, word in sorted(found) if word in QUESTIONS]


def _at_import(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports that run when a file is imported: none in functions, none for the type checker alone."""
    for node in body:
        match node:
            case ast.Import() | ast.ImportFrom():
                yield node
            case ast.If(test=test, orelse=orelse) if ast.unparse(test).endswith("TYPE_CHECKING"):
                yield from _at_import(orelse)
            case ast.If() | ast.Try() | ast.With() | ast.ClassDef():
                handlers = [line for one in getattr(node, "handlers", []) for line in one.body]
                yield from _at_import([*node.body, *handlers, *getattr(node, "orelse", [])])


def imports(sources: Mapping[str, str]) -> Mapping[str, Set[str]]:
    """Module -> the package's modules that importing it imports; of a file in a folder the folder's own file too.

    ``sources`` are texts by path within the package; modules are named by theirs, dotted, "" the package itself.
    """
    modules = {
        path.removesuffix(".py").removesuffix("__init__").strip("/").replace("/", "."): text
        for path, text in sources.items()
    }

    def known(name: str) -> str | None:
        inner = name.removeprefix("sgi2v").removeprefix(".")
        return inner if name.split(".")[0] == "sgi2v" and inner in modules else None

    def named(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
        for alias in node.names:
            names = [alias.name]
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}", str(node.module)]
            yield from [found for name in names if (found := known(name)) is not None][:1]

    def with_folders(module: str, target: str) -> Iterator[str]:
        parts = target.split(".")
        for count in range(1, len(parts) + 1):
            folder = ".".join(parts[:count])
            if folder == target or not f"{module}.".startswith(f"{folder}."):
                yield folder

    return {
        module: {
            one
            for node in _at_import(ast.parse(text).body)
            for target in named(node)
            for one in with_folders(module, target)
        }
        - {module}
        for module, text in modules.items()
    }


def misplaced(graph: Mapping[str, Set[str]]) -> list[str]:
    """Imports from a higher storey than the importer's, of the package as a whole, and files of no storey."""
    storeys = {room: level for level, rooms in enumerate(ROOMS) for room in rooms.split()}
    found = []
    for module, targets in graph.items():
        room = module.split(".")[0]
        if room and room not in storeys:
            found.append(f"{module}: stands on no storey; name it in ROOMS")
            continue
        for target in targets:
            above = storeys.get(target.split(".")[0], len(ROOMS)) > storeys.get(room, len(ROOMS))
            if above:
                found.append(f"{module}: imports {target or 'the package as a whole'}, which stands above it")
    return sorted(found)


def circles(graph: Mapping[str, Set[str]]) -> list[str]:
    """Modules that import each other in a ring, each ring once."""

    @cache
    def reached(module: str) -> frozenset[str]:
        found: set[str] = set()
        coming = [module]
        while coming:
            fresh = graph[coming.pop()] - found
            found |= fresh
            coming += fresh
        return frozenset(found)

    rings = {
        tuple(sorted(other for other in reached(module) if module in reached(other)))
        for module in graph
        if module in reached(module)
    }
    return [f"a circle of imports: {', '.join(ring)}" for ring in sorted(rings)]


def package() -> Mapping[str, str]:
    """The text of every file of the package by its path within it."""
    files = sorted(PACKAGE.rglob("*.py"))
    return MappingProxyType({file.relative_to(PACKAGE).as_posix(): file.read_text(encoding="utf-8") for file in files})


def assert_none(found: list[str]) -> None:
    """Fails with every fault on a line of its own."""
    assert not found, f"{len(found)} faults\n" + "\n".join(found)


def test_every_file_keeps_the_house_rules() -> None:
    assert len(package()) > 100
    assert_none([fault for path, source in package().items() for fault in faults(path, source)])


def test_docstrings_name_what_is_there() -> None:
    assert_none([fault for path, source in package().items() for fault in questions(path, source)])


def test_no_room_imports_from_above_and_none_in_a_circle() -> None:
    graph = imports(package())
    assert {"errors", "lazy", "backbones.base"} <= graph["planning"] | graph["controllers.base"]
    assert_none([*misplaced(graph), *circles(graph)])


PLANTED = (
    ("print('x')", "print"),
    ("device = 'cuda'", "names a device"),
    ("device = 'cuda:1'", "names a device"),
    ("device = 'mps'", "names a device"),
    ("x.cuda()", "names a device"),
    ("net.train()", "training mode"),
    ("net.training = True", "assigns to training"),
    ("net.forward = f", "assigns to forward"),
    ("setattr(net, 'forward', f)", "assigns to forward"),
    ("from os import *", "import *"),
    ("try:\n  pass\nexcept:\n  pass", "bare except"),
    ("CACHE = {}", "mutable"),
    ("CACHE: dict[str, int] = dict()", "mutable"),
    ("import collections\nseen = collections.deque()", "mutable"),
    ("if True:\n  seen = [n for n in 'ab']", "mutable"),
    ("class A:\n  seen = []", "mutable"),
    ("def f():\n  global x", "global"),
    ("import torch\nwith torch.inference_mode():\n  pass", "inference_mode"),
    ("torch.load('x')", "weights_only"),
    ("torch.load('x', weights_only=False)", "weights_only"),
    ("torch.jit.load('x')", "runs code"),
    ("np.load('x', allow_pickle=True)", "runs code"),
    ("import sys\nsys.exit(1)", "exits"),
    ("x = 1\n" * (MAX_LINES + 1), "too long"),
)
PLANTED_QUESTIONS = (
    'def f():\n  """Whether it is."""',
    'class A:\n  """How it works."""',
    'class A:\n  x: int = 1\n  """Where, and when."""',
    'X = 1\n"""What: this."""',
)


def test_the_checker_sees_planted_faults() -> None:
    missed = []
    for source, expected in PLANTED:
        found = faults("some_file.py", f'"""A file."""\n{source}\n')
        if len(found) != 1 or expected not in found[0]:
            missed.append(f"{source[:60]!r}: {expected!r} expected, found {found}")
    for source in PLANTED_QUESTIONS:
        if len(questions("some_file.py", f'"""A file."""\n{source}\n')) != 1:
            missed.append(f"{source!r} begins with no question")
    assert len(questions("a.py", '"""Which file this is."""\n')) == 1
    assert_none(missed)


def test_the_checker_sees_what_depends_on_the_file() -> None:
    assert "docstring" not in faults("a.py", '"""Purpose."""\n')
    assert "what it is for" in faults("a.py", "x = 1\n")[0]
    wrong = (
        ("backbones/a.py", "from sgi2v.controllers.base import Controller", "controller"),
        ("controllers/a.py", "from sgi2v.backbones.svd import SVD", "backbone"),
        ("controllers/a.py", "import sgi2v.backbones.svd", "backbone"),
    )
    for path, line, expected in wrong:
        assert expected in faults(path, f'"""P."""\n{line}\n')[0]


def test_the_checker_sees_imports_from_above_and_in_a_circle() -> None:
    def found(sources: dict[str, str]) -> list[str]:
        graph = imports({"__init__.py": "", **sources})
        return [*misplaced(graph), *circles(graph)]

    for planted, expected in (
        ({"scene.py": "from sgi2v.pipeline import plan", "pipeline.py": ""}, "scene: imports pipeline, which"),
        ({"scene.py": "import sgi2v.cli.bar", "cli/__init__.py": "", "cli/bar.py": ""}, "imports cli.bar"),
        ({"scene.py": "try:\n  from sgi2v import pipeline\nexcept E:\n  pass", "pipeline.py": ""}, "above it"),
        ({"run.py": "from sgi2v import Scene"}, "imports the package as a whole"),
        ({"attic.py": ""}, "attic: stands on no storey"),
        ({"run.py": "from sgi2v.video import V", "video.py": "import sgi2v.run"}, "circle of imports: run, video"),
        (
            {  # of a file in a folder the folder's own is imported first
                "world/__init__.py": "from sgi2v.world.b import B",
                "world/b.py": "import sgi2v.evaluation.c",
                "evaluation/__init__.py": "",
                "evaluation/c.py": "",
            },
            "world.b: imports evaluation, which",
        ),
    ):  # fmt: skip
        assert any(expected in fault for fault in found(planted)), (planted, found(planted))
    honest = {
        "scene.py": "def f():\n  from sgi2v.pipeline import plan",
        "pipeline.py": "from sgi2v.scene import Scene\nfrom sgi2v.backbones.base import B",
        "backbones/__init__.py": "from sgi2v.backbones.base import B",
        "backbones/base.py": "if TYPE_CHECKING:\n  from sgi2v.pipeline import plan",
    }
    assert found(honest) == []


def test_the_checker_lets_honest_code_pass() -> None:
    source = '"""P."""\n__all__ = ["f"]\nNAMES = ("a",)\n\n\ndef f():\n    seen = []\n    return seen\n'
    assert faults("a.py", source) == [] == questions("a.py", source)
    assert questions("a.py", '"""P."""\ndef f():\n  x = 1\n  """What is no docstring."""\n') == []
    assert faults("cli/a.py", '"""P."""\nimport sys\nprint(1)\nsys.exit(0)\n') == []
    assert faults("training/a.py", '"""P."""\nnet.train()\n') == []
    assert faults(PICKS_DEVICE, '"""P."""\ndevice = "cuda"\n') == []
    assert faults("controllers/a.py", '"""P."""\nfrom sgi2v.backbones.base import Backbone\n') == []


# Written in halves, so that this file does not find itself.
FOREIGN = tuple(
    "".join(halves)
    for halves in (
        ("pypi", ".org"), ("pythonhosted", ".org"), ("download.", "pytorch.org"), ("npmjs", ".org"),
        ("deb.", "debian.org"), ("/opt", "/wheels"), ("/work", "/main"), ("/work", "/shared"), ("/ro", "ot/"),
        ("/tmp", "/w/"), ("/ho", "me/"), ("/Us", "ers/"),
    )
)  # fmt: skip


def foreign(text: str) -> list[str]:
    """Registry hosts and paths of one person's machine that a text names."""
    return [name for name in FOREIGN if name in text]


def test_tracked_files_name_no_registry_and_no_machine() -> None:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout: there is no list of tracked files")
    texts = {
        ".py",
        ".md",
        ".toml",
        ".txt",
        ".json",
        ".jsonl",
        ".yml",
        ".yaml",
        ".html",
        ".js",
        ".css",
        ".sh",
        "",
    }
    found = {}
    for name in filter(None, listing.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and path.suffix in texts and path.name != "LICENSE":
            found[name] = foreign(path.read_text(encoding="utf-8", errors="replace"))
    assert len(found) > 10
    assert {name: names for name, names in found.items() if names} == {}


def test_foreign_names_are_seen() -> None:
    assert foreign("see https://files." + "pythonhosted" + ".org/x") == ["pythonhosted" + ".org"]
    assert foreign("a path in /usr/lib") == []


def test_public_names_are_what_they_say_and_cost_nothing_until_asked_for() -> None:
    program = (
        "import sys, types, sgi2v\n"
        "assert 'torch' not in sys.modules and 'tyro' not in sys.modules\n"
        "sgi2v.load_scene; assert 'torch' not in sys.modules\n"
        "from sgi2v.pipeline import Sampling\n"
        "values = {name: getattr(sgi2v, name) for name in sgi2v.__all__}\n"
        "assert not [n for n, v in values.items() if isinstance(v, types.ModuleType)], values\n"
        "assert callable(sgi2v.generate) and sgi2v.Sampling is Sampling\n"
        "assert not hasattr(sgi2v, 'nonsense')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_shapes_are_really_checked() -> None:
    """With jaxtyping's hook missing, or its type checker not named last, a wrong shape would pass."""
    from sgi2v.video import Video

    Video(frames=torch.zeros(2, 3, 4, 4), fps=7.0)
    with pytest.raises(jaxtyping.TypeCheckError):
        Video(frames=torch.zeros(2, 4, 4), fps=7.0)


def test_a_function_is_checked_too() -> None:
    from sgi2v.video import to_uint8

    assert to_uint8(torch.ones(2, 3, 4, 4)).shape == (2, 4, 4, 3)
    with pytest.raises(jaxtyping.TypeCheckError):
        to_uint8(torch.ones(2, 3, 4, 4, dtype=torch.float64))
