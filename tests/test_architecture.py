"""The rules of the code: who imports whom, who may write or commit what, and how large things are.

They are read from the source with `ast`. They are about the packages in LAYERS, their tests and their templates: a
team's own packages, with `tests/<package>` and `templates/<package>`, may do what they need.
"""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import mean

import pytest

from config import ROOT

PACKAGE = ROOT / "pwreset"
FILES = sorted(PACKAGE.rglob("*.py"))
OWN = [*FILES, ROOT / "config.py", ROOT / "config_checks.py", ROOT / "wsgi.py"]

# From the top down, by package: a package imports those of lower lines, or of its own line if that makes no cycle.
LAYERS = (
    {"wsgi", "pwreset.celery_app"},
    {"pwreset"},
    {"pwreset.startup"},
    {"pwreset.commands", "pwreset.users", "pwreset.password_reset"},
    {"pwreset.web", "pwreset.outbox"},
    {"pwreset.accounts", "pwreset.monitoring"},
    {"pwreset.models"},
    {"pwreset.extensions"},
    {
        "pwreset.addresses",
        "pwreset.clock",
        "pwreset.database",
        "pwreset.logs",
        "pwreset.mail",
        "pwreset.passwords",
        "pwreset.rate_limits",
        "pwreset.request_info",
        "pwreset.state",
    },
    {"config", "config_checks"},
)
LAYER_OF = {package: number for number, packages in enumerate(LAYERS) for package in packages}
# Pages, apart from the mailbox's: they request emails, and never deliver any.
PAGE_PACKAGES = {"pwreset.users", "pwreset.password_reset", "pwreset.web"}
DELIVERY = {"pwreset.outbox.delivery", "pwreset.outbox.worker", "pwreset.outbox.emails"}
# What commits, apart from pages and commands, which commit their own transaction. `settle` alone commits outcomes.
COMMITS = {
    "pwreset.accounts.login_throttle.count_attempt",  # an attempt counts whatever follows
    "pwreset.accounts.service.create",  # a conflict shows at the commit
    "pwreset.accounts.sessions.sign_out",  # a revoked session stays revoked whatever follows
    "pwreset.monitoring.rejected_requests.write",
    "pwreset.outbox.cooldown.claim",  # before the email is written, which takes time
    "pwreset.outbox.delivery._record_heartbeat",
    "pwreset.outbox.delivery._write_and_send",  # what a team's token generator or template wrote
    "pwreset.outbox.queue._update_all",  # an operator's retry, and the repair of dates
    "pwreset.outbox.queue.claim",
    "pwreset.outbox.queue.settle",
    "pwreset.outbox.retention.purge",
}
CELERY = "pwreset.celery_app"
FORBIDDEN_WORDS = r"(^|_)(utils?|helpers?|manager|data|forgot|forgotten)($|_)|^(handle|process)_"
# Names that libraries fix: Flask-Login's extension, SQLAlchemy's types, Django's views, smtplib's command.
FIXED_NAMES = {"login_manager", "LoginManager", "process_bind_param", "process_result_value", "get_context_data"}
FIXED_METHODS = {("pwreset.mail.client", "data")}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    """Return the module's dotted name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in OWN}


def package_of(module: str) -> str:
    """Return the package that a module belongs to; a loose module is its own."""
    return ".".join(module.split(".")[:2]) if module.startswith("pwreset.") else module


OURS = [name for name in MODULES if package_of(name) in LAYER_OF]
OUR_FILES = [MODULES[name] for name in OURS]
TEAMS_FOLDERS = {package_of(name).removeprefix("pwreset.") for name in MODULES.keys() - OURS}
AROUND = {
    name_of(path): path
    for path in [*sorted((ROOT / "benchmarks").rglob("*.py")), *sorted((ROOT / "tests").rglob("*.py"))]
    if path.relative_to(ROOT).parts[1] not in TEAMS_FOLDERS
}
ALL_MODULES = MODULES | AROUND
TEMPLATES = [
    path
    for path in sorted((ROOT / "templates").rglob("*.html"))
    if path.relative_to(ROOT / "templates").parts[0] not in TEAMS_FOLDERS
]
PAGES = [path for path in TEMPLATES if "mail" not in path.relative_to(ROOT / "templates").parts]


def imports_of(path: Path, *, late: bool = True) -> set[str]:
    """Return the own modules a file imports by name; `late` counts imports inside functions too."""
    nodes = ast.walk(tree_of(path)) if late else iter(tree_of(path).body)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & ALL_MODULES.keys()
            package = {node.module or ""} if len(inner) < len(node.names) else set()
            found |= inner | package
    return found & ALL_MODULES.keys() - {name_of(path)}


def foreign_imports(path: Path) -> set[str]:
    """Return the top-level packages that a file imports."""
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found |= {name.partition(".")[0] for name in names}
    return found


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield every function and method of ours with its name."""
    for path in OUR_FILES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef):
                yield f"{name_of(path)}.{node.name}", node


def length(node: ast.FunctionDef) -> int:
    """Return a function's lines, without its docstring and decorators."""
    start, end = node.lineno, node.end_lineno or node.lineno
    first = node.body[0]
    if ast.get_docstring(node) is not None:
        start += (first.end_lineno or 0) - first.lineno + 1
    return end - start + 1


def calls(node: ast.AST) -> Iterator[ast.Call]:
    return (inner for inner in ast.walk(node) if isinstance(inner, ast.Call))


def called_name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def callers_of(*names: str) -> set[str]:
    """Return our modules that call a function of one of these names."""
    return {name for name in OURS if any(called_name(call) in names for call in calls(tree_of(MODULES[name])))}


def writers_of(model: str) -> set[str]:
    """Return our modules that create, update or delete rows of a model."""
    return {
        name
        for name in OURS
        for call in calls(tree_of(MODULES[name]))
        if called_name(call) == model
        or (called_name(call) in {"insert", "update", "delete"} and any(mentions(arg, model) for arg in call.args))
    }


def mentions(node: ast.AST, name: str) -> bool:
    return any(isinstance(inner, ast.Name) and inner.id == name for inner in ast.walk(node))


def unfinished(graph: dict[str, set[str]]) -> set[str]:
    """Return the nodes of a graph that are in a cycle, or lead to one."""
    free: set[str] = set()
    while ready := {name for name in graph.keys() - free if graph[name] & graph.keys() <= free}:
        free |= ready
    return graph.keys() - free


# --- who imports whom


@pytest.mark.parametrize("module", OURS)
def test_a_package_imports_only_packages_of_lower_layers_or_its_own(module: str) -> None:
    layer = LAYER_OF[package_of(module)]
    upwards = {name for name in imports_of(MODULES[module]) if LAYER_OF.get(package_of(name), layer) < layer}
    assert upwards == set()


def test_packages_have_no_cycle() -> None:
    graph: dict[str, set[str]] = {package: set() for package in LAYER_OF}
    for module in OURS:
        graph[package_of(module)] |= {package_of(name) for name in imports_of(MODULES[module])} - {package_of(module)}
    assert unfinished(graph) == set()


def test_modules_have_no_cycle_benchmarks_and_test_support_included() -> None:
    ours = [*OURS, *AROUND]
    assert unfinished({name: imports_of(ALL_MODULES[name], late=False) for name in ours}) == set()


def test_every_package_of_ours_is_in_a_layer_that_exists() -> None:
    assert {package_of(name) for name in MODULES} >= LAYER_OF.keys()


def test_the_application_stays_surveyable() -> None:
    ours = {package for package in LAYER_OF if package.startswith("pwreset.")}
    packages = {package for package in ours if (ROOT / package.replace(".", "/")).is_dir()}
    assert len(ours - packages) <= 11
    assert len(packages) + 1 <= 10  # and the folder `static`


@pytest.mark.parametrize("module", [name for name in OURS if package_of(name) in PAGE_PACKAGES])
def test_pages_import_nothing_that_delivers(module: str) -> None:
    imported = imports_of(MODULES[module])
    mail = {name for name in imported if package_of(name) == "pwreset.mail"}
    assert imported & DELIVERY == set()
    assert mail <= ({"pwreset.mail.mailbox"} if module == "pwreset.web.mailbox" else set())


@pytest.mark.parametrize("module", [name for name in OURS if package_of(name) == "pwreset.passwords"])
def test_passwords_know_neither_flask_nor_the_database(module: str) -> None:
    assert foreign_imports(MODULES[module]) & {"flask", "sqlalchemy", "flask_login", "flask_sqlalchemy"} == set()
    assert {package_of(name) for name in imports_of(MODULES[module])} <= {"pwreset.passwords"}


@pytest.mark.parametrize("module", [name for name in OURS if package_of(name) == "pwreset.mail"])
def test_the_transport_knows_neither_accounts_nor_rows(module: str) -> None:
    assert {package_of(name) for name in imports_of(MODULES[module])} <= {
        "pwreset.mail",
        "pwreset.addresses",
        "pwreset.clock",
    }


def test_settings_know_nothing_of_the_application() -> None:
    assert imports_of(ROOT / "config.py") == {"config_checks"}
    assert imports_of(ROOT / "config_checks.py") == set()


@pytest.mark.parametrize("module", [name for name in ALL_MODULES if name.startswith("benchmarks")])
def test_benchmarks_do_not_import_tests(module: str) -> None:
    assert {name for name in imports_of(ALL_MODULES[module]) if name.startswith("tests")} == set()


@pytest.mark.parametrize("module", [name for name in ALL_MODULES if name.startswith("tests.")])
def test_tests_import_only_support(module: str) -> None:
    imported = {name for name in imports_of(ALL_MODULES[module]) if name.startswith("tests")}
    assert {name for name in imported if not name.startswith("tests.support")} == set()


@pytest.mark.parametrize("path", [path for name, path in AROUND.items() if name.startswith("tests")], ids=name_of)
def test_a_test_file_stays_within_500_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500


# --- who may do what


def test_one_function_commits_outcomes_and_pages_commit_their_own_transaction() -> None:
    committing = {
        f"{name}.{node.name}"
        for name in OURS
        if package_of(name) not in PAGE_PACKAGES | {"pwreset.commands"}
        for node in ast.walk(tree_of(MODULES[name]))
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(call.func) == "db.session.commit" for call in calls(node))
    }
    assert committing == COMMITS


def test_only_the_outbox_writes_the_outbox() -> None:
    assert writers_of("OutboxMessage") == {"pwreset.outbox.queue"}


def test_only_accounts_and_the_cooldown_write_users() -> None:
    assert writers_of("User") == {"pwreset.accounts.service", "pwreset.outbox.cooldown"}


def test_nobody_changes_an_account_by_assignment() -> None:
    columns = {
        "email",
        "email_key",
        "password_hash",
        "security_stamp",
        "is_active",
        "last_login",
        "cooldown_started_at",
        "registered_at",
    }
    found = [
        f"{name}:{node.lineno}"
        for name in OURS
        for node in ast.walk(tree_of(MODULES[name]))
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Attribute) and target.attr in columns
    ]
    assert found == []


def test_only_counters_write_counters() -> None:
    raisers = {name for name in OURS for c in calls(tree_of(MODULES[name])) if ast.unparse(c.func) == "counters.add"}
    assert writers_of("Counter") == set()
    assert raisers == {
        "pwreset.monitoring.rejected_requests",
        "pwreset.outbox.delivery",
        "pwreset.outbox.queue",
        "pwreset.password_reset.views",
    }


def test_only_events_write_security_events_and_the_purge_deletes_them() -> None:
    assert writers_of("SecurityEvent") == {"pwreset.accounts.events", "pwreset.outbox.retention"}


def test_tokens_are_created_where_emails_are_written_and_nowhere_else() -> None:
    assert callers_of("make_token") == {"pwreset.outbox.emails"}


def test_links_are_created_for_emails_and_for_the_reset_link_command() -> None:
    in_command = {
        node.name
        for node in ast.walk(tree_of(MODULES["pwreset.commands.users"]))
        if isinstance(node, ast.FunctionDef) and any(called_name(call) == "link_to_page" for call in calls(node))
    }
    callers = callers_of("link_to_page")
    assert (in_command, callers) == ({"reset_link"}, {"pwreset.outbox.emails", "pwreset.commands.users"})


def test_links_are_checked_by_the_views_that_an_emailed_link_opens_alone() -> None:
    assert callers_of("check_token", "has_expired") == {"pwreset.accounts.tokens"}
    assert callers_of("check_link") == {"pwreset.web.views", "pwreset.password_reset.views"}


def test_a_request_never_delivers() -> None:
    assert callers_of("deliver_pending") == {"pwreset.outbox.worker", "pwreset.commands.outbox"}


# --- size and words


@pytest.mark.parametrize("path", OUR_FILES, ids=name_of)
def test_a_module_stays_under_200_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 200


def test_no_function_is_longer_than_25_lines() -> None:
    assert {name: length(node) for name, node in functions() if length(node) > 25} == {}


def test_functions_average_seven_lines_or_fewer() -> None:
    assert mean(length(node) for _, node in functions()) <= 7


@pytest.mark.parametrize("path", OUR_FILES, ids=name_of)
def test_everything_public_says_what_it_is(path: Path) -> None:
    undocumented = [] if ast.get_docstring(tree_of(path)) else ["the module"]
    holders = [tree_of(path), *(node for node in tree_of(path).body if isinstance(node, ast.ClassDef))]
    for node in (node for holder in holders for node in holder.body):
        public = isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
        if public and not ast.get_docstring(node):
            undocumented.append(node.name)
    assert undocumented == []


def own_names() -> Iterator[tuple[str, str]]:
    """Yield every name that our modules give to something, with its module."""
    for path in OUR_FILES:
        yield name_of(path), path.stem
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield name_of(path), node.name
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield name_of(path), node.id
            elif isinstance(node, ast.arg):
                yield name_of(path), node.arg


def test_no_name_is_one_that_says_nothing() -> None:
    named = {(module, name) for module, name in own_names() if name not in FIXED_NAMES}
    found = sorted((module, name) for module, name in named if re.search(FORBIDDEN_WORDS, name.lower()))
    assert set(found) - FIXED_METHODS == set()


# --- what comes from outside


def requirements(name: str) -> list[str]:
    """Return the requirements of a file, without comments and includes."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.startswith(("#", "-r"))]


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-scale.txt", "requirements-dev.txt"])
def test_every_requirement_is_pinned(name: str) -> None:
    pinned = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[a-z,]+\])?==[0-9][A-Za-z0-9.]*(; .+)?")
    assert [line for line in requirements(name) if not pinned.fullmatch(line)] == []


def test_nothing_is_imported_that_is_not_required() -> None:
    packages = {
        "argon2": "argon2-cffi",
        "dotenv": "python-dotenv",
        "email_validator": "email-validator",
        "flask_limiter": "Flask-Limiter",
        "flask_login": "Flask-Login",
        "flask_mail": "Flask-Mail",
        "flask_migrate": "Flask-Migrate",
        "flask_sqlalchemy": "Flask-SQLAlchemy",
        "flask_wtf": "Flask-WTF",
        "prometheus_client": "prometheus_client",
        "pythonjsonlogger": "python-json-logger",
    }
    required = {re.split(r"[=\[]", line)[0].lower() for line in requirements("requirements.txt")}
    foreign = set().union(*(foreign_imports(MODULES[name]) for name in OURS if name != CELERY))
    foreign -= sys.stdlib_module_names | {"pwreset", "config", "config_checks"}
    assert {name for name in foreign if packages.get(name, name).lower() not in required} == set()
    assert "flask" in foreign


def test_celery_is_imported_in_one_module_that_no_other_imports() -> None:
    imported = {name for name in OURS if foreign_imports(MODULES[name]) & {"celery", "kombu"}}
    assert imported == {CELERY}
    assert [name for name, path in MODULES.items() if CELERY in imports_of(path)] == []


# --- templates


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT / "templates")))
def test_a_page_loads_nothing_from_elsewhere(path: Path) -> None:
    attributes = re.findall(
        r"""(?:src|href|action|srcset|poster)\s*=\s*["']\s*((?:https?:)?//[^"']*)""", path.read_text()
    )
    assert attributes == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT / "templates")))
def test_a_page_holds_no_script_and_no_style_of_its_own(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    inline = re.findall(
        r"<script(?![^>]*\bsrc=)[^>]*>|<style|\sstyle\s*=|\son[a-z]+\s*=|javascript:", text, re.IGNORECASE
    )
    assert inline == []


def test_there_are_pages_to_look_at() -> None:
    assert len(PAGES) > 15


@pytest.mark.parametrize("name", ["pwreset.css", "pico.min.css", "pwreset.js"])
def test_static_files_load_nothing_from_elsewhere(name: str) -> None:
    text = (PACKAGE / "static" / name).read_text(encoding="utf-8")
    assert re.findall(r"@import|url\(\s*[\"']?(?:https?:)?//|fetch\(|XMLHttpRequest|import\(", text) == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT / "templates")))
def test_no_template_switches_escaping_off(path: Path) -> None:
    assert re.findall(r"\|\s*safe\b|autoescape\s+false", path.read_text(encoding="utf-8")) == []
