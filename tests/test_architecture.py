"""The house: who imports whom, who may write what, and how large things are. Read from the source with `ast`."""

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
TEMPLATES = sorted((ROOT / "templates").rglob("*.html"))
PAGES = [path for path in TEMPLATES if "mail" not in path.relative_to(ROOT / "templates").parts]

# From the top down: a module imports modules of lower lines only, or of its own line. `.*` is a package's inside.
LAYERS = (
    ("wsgi", "pwreset.celery_app"),
    ("pwreset",),
    ("pwreset.commands", "pwreset.commands.*"),
    ("pwreset.startup",),
    ("pwreset.outbox.worker",),
    ("pwreset.outbox.delivery", "pwreset.outbox.retention", "pwreset.users"),
    ("pwreset.outbox.emails", "pwreset.outbox.cooldown", "pwreset.users.views"),
    ("pwreset.users.forms",),
    ("pwreset.password_reset",),
    ("pwreset.password_reset.revoke",),
    ("pwreset.password_reset.views",),
    ("pwreset.accounts.sessions",),
    (
        "pwreset.password_reset.*",
        "pwreset.web.forms",
        "pwreset.web.errors",
        "pwreset.monitoring.health",
        "pwreset.web.mailbox",
    ),
    (
        "pwreset.monitoring.rejected_requests",
        "pwreset.logs",
        "pwreset.monitoring.metrics",
        "pwreset.monitoring.stall_monitor",
    ),
    ("pwreset.web.security", "pwreset.web.views", "pwreset.logs", "pwreset.monitoring.queue_status"),
    ("pwreset.accounts", "pwreset.outbox"),
    ("pwreset.accounts.events", "pwreset.monitoring.counters", "pwreset.accounts.login_throttle"),
    ("pwreset.models",),
    ("pwreset.extensions",),
    ("pwreset.mail.smtp", "pwreset.rate_limits"),
    ("pwreset.mail.client", "pwreset.mail.mailbox", "pwreset.mail.errors", "pwreset.clock", "pwreset.mail"),
    ("pwreset.mail.message",),
    ("pwreset.mail.errors",),
    ("pwreset.passwords", "pwreset.passwords.*"),
    ("pwreset.addresses", "pwreset.request_info", "pwreset.clock", "pwreset.database", "pwreset.clock"),
    ("config",),
    ("config_checks",),
)
CELERY = "pwreset.celery_app"
VIEWS = [
    "pwreset.users.views",
    "pwreset.password_reset.views",
    "pwreset.password_reset.revoke",
    "pwreset.web.views",
    "pwreset.web.mailbox",
    "pwreset.monitoring.health",
    "pwreset.monitoring.metrics",
]
DELIVERY = {"pwreset.outbox.delivery", "pwreset.outbox.worker", "pwreset.outbox.emails", "pwreset.mail.smtp"}
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


def imports_of(path: Path, *, late: bool = True) -> set[str]:
    """Return the own modules a file imports by name; `late` counts imports inside functions too."""
    nodes = ast.walk(tree_of(path)) if late else iter(tree_of(path).body)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            whole = {node.module or ""} if len(inner) < len(node.names) else set()
            found |= inner | whole
    return found & MODULES.keys() - {name_of(path)}


def layer_of(module: str) -> int:
    """Return the line a module stands on; its own name goes before its package's inside."""
    for pattern in (module, f"{module.rpartition('.')[0]}.*"):
        for number, names in enumerate(LAYERS):
            if pattern in names:
                return number
    pytest.fail(f"{module} stands in no layer: add it to LAYERS")


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield every function and method of the application with its name."""
    for path in OWN:
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


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call))


def called_name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def callers_of(*names: str) -> set[str]:
    """Return the modules that call a function of one of these names."""
    return {name_of(path) for path in OWN if any(called_name(call) in names for call in calls(path))}


def mentions(node: ast.AST, name: str) -> bool:
    return any(isinstance(inner, ast.Name) and inner.id == name for inner in ast.walk(node))


# --- who imports whom


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downwards(module: str) -> None:
    upwards = [name for name in imports_of(MODULES[module]) if layer_of(name) < layer_of(module)]
    late = {"pwreset.commands": {"pwreset.startup"}}
    assert set(upwards) - late.get(module, set()) == set()


def test_no_module_imports_itself_by_a_detour() -> None:
    graph = {name: imports_of(path, late=False) for name, path in MODULES.items()}
    free: set[str] = set()
    while ready := {name for name in graph.keys() - free if graph[name] <= free}:
        free |= ready
    assert graph.keys() - free == set()


@pytest.mark.parametrize("view", VIEWS)
def test_views_import_nothing_that_sends_mail(view: str) -> None:
    assert imports_of(MODULES[view]) & DELIVERY == set()


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("pwreset.passwords")])
def test_passwords_know_neither_flask_nor_the_database(module: str) -> None:
    roots = set()
    for node in ast.walk(tree_of(MODULES[module])):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        roots |= {name.partition(".")[0] for name in names}
    assert roots & {"flask", "sqlalchemy", "flask_login", "flask_sqlalchemy"} == set()
    assert {name for name in imports_of(MODULES[module]) if not name.startswith("pwreset.passwords")} == set()


def test_settings_know_nothing_of_the_application() -> None:
    assert imports_of(ROOT / "config.py") == {"config_checks"}
    assert imports_of(ROOT / "config_checks.py") == set()


# --- who may do what


def test_only_the_outbox_writes_the_outbox() -> None:
    writers = {
        name_of(path)
        for path in FILES
        for call in calls(path)
        if called_name(call) == "OutboxMessage"
        or (called_name(call) in {"insert", "update", "delete"} and mentions(call, "OutboxMessage"))
    }
    assert writers == {"pwreset.outbox"}


def test_only_accounts_write_users() -> None:
    writers = {
        name_of(path)
        for path in FILES
        for call in calls(path)
        if called_name(call) == "User"
        or (called_name(call) in {"insert", "update", "delete"} and any(mentions(arg, "User") for arg in call.args))
    }
    assert writers == {"pwreset.accounts"}


def test_nobody_changes_an_account_by_assignment() -> None:
    columns = {"email", "email_key", "password_hash", "stamp", "is_active", "last_login", "mailed_at"}
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Attribute) and target.attr in columns
    ]
    assert found == []


def test_only_counters_write_counters() -> None:
    writers = {name for name in MODULES if any(called_name(c) == "Counter" for c in calls(MODULES[name]))}
    raisers = {name for name in MODULES for c in calls(MODULES[name]) if ast.unparse(c.func) == "counters.add"}
    assert writers == set()
    assert raisers == {
        "pwreset.monitoring.rejected_requests",
        "pwreset.outbox.delivery",
        "pwreset.outbox",
        "pwreset.password_reset.views",
    }


def test_only_events_write_security_events() -> None:
    assert callers_of("SecurityEvent") == {"pwreset.accounts.events"}


def test_tokens_are_made_where_mail_is_written_and_nowhere_else() -> None:
    assert callers_of("make_token") == {"pwreset.outbox.emails"}


def test_links_are_made_for_mail_and_for_the_reset_link_command() -> None:
    users = MODULES["pwreset.commands.users"]
    in_command = {
        node.name
        for node in ast.walk(tree_of(users))
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(inner, ast.Call) and called_name(inner).startswith("link_to_") for inner in ast.walk(node))
    }
    callers = {name for name in MODULES if any(called_name(c).startswith("link_to_") for c in calls(MODULES[name]))}
    assert (in_command, callers) == ({"reset_link"}, {"pwreset.outbox.emails", "pwreset.commands.users"})


def test_tokens_are_checked_by_the_views_alone() -> None:
    checkers = {
        name_of(path)
        for path in FILES
        for call in calls(path)
        if called_name(call) == "check_token"
        or (called_name(call) == "verify" and "token_generator" in ast.unparse(call.func))
    }
    assert {name for name in checkers if name not in VIEWS} == set()
    assert checkers


def test_a_request_never_delivers() -> None:
    assert callers_of("deliver_pending") == {"pwreset.outbox.worker", "pwreset.commands.outbox"}


# --- size and words


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_module_stays_under_200_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 200


def test_no_function_is_longer_than_25_lines() -> None:
    assert {name: length(node) for name, node in functions() if length(node) > 25} == {}


def test_functions_average_nine_lines_or_fewer() -> None:
    assert mean(length(node) for _, node in functions()) <= 9


@pytest.mark.parametrize("path", OWN, ids=name_of)
def test_everything_public_says_what_it_is(path: Path) -> None:
    undocumented = [] if ast.get_docstring(tree_of(path)) else ["the module"]
    holders = [tree_of(path), *(node for node in tree_of(path).body if isinstance(node, ast.ClassDef))]
    for node in (node for holder in holders for node in holder.body):
        public = isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
        if public and not ast.get_docstring(node):
            undocumented.append(node.name)
    assert undocumented == []


def own_names() -> Iterator[tuple[str, str]]:
    """Yield every name the application gives to something, with its module."""
    for path in OWN:
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
    foreign: set[str] = set()
    for path in set(OWN) - {MODULES[CELERY]}:
        for node in ast.walk(tree_of(path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            foreign |= {name.partition(".")[0] for name in names}
    foreign -= sys.stdlib_module_names | {"pwreset", "config", "config_checks"}
    assert {name for name in foreign if packages.get(name, name).lower() not in required} == set()
    assert "flask" in foreign


def test_celery_is_imported_in_one_module_that_no_other_imports() -> None:
    imported = {
        name_of(path)
        for path in OWN
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Import | ast.ImportFrom) and re.search(r"\b(celery|kombu)\b", ast.unparse(node))
    }
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
