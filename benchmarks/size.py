"""The size of the code in pwreset/ and config.py, without comments, docstrings and blank lines: `make size`."""

import ast
import io
import tokenize
from pathlib import Path
from statistics import mean

from benchmarks.report import ROOT

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
NOT_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
}  # fmt: skip


def main() -> None:
    """Print the figures."""
    modules = [*sorted((ROOT / "pwreset").rglob("*.py")), *ROOT.glob("config*.py")]
    lines = 0
    functions = dict[str, int]()
    for path in modules:
        code = code_lines(path.read_text(encoding="utf-8"))
        lines += len(code)
        functions |= {f"{path.relative_to(ROOT)}: {name}": size for name, size in function_sizes(path, code)}
    longest = max(functions, key=functions.__getitem__)
    largest = max(modules, key=_length)
    print(f"{lines} lines of code in {len(modules)} modules")
    print(f"{len(functions)} functions of {mean(functions.values()):.1f} lines on average")
    print(f"longest function: {longest}, {functions[longest]} lines")
    print(f"largest module: {largest.relative_to(ROOT)}, {_length(largest)} lines with comments and docstrings")


def code_lines(text: str) -> set[int]:
    """Return the numbers of the lines that contain code."""
    used: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NOT_CODE:
            used |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            used -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return used


def function_sizes(path: Path, code: set[int]) -> list[tuple[str, int]]:
    """Return each function with the number of its lines of code, decorators not counted."""
    functions = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, FUNCTIONS)]
    return [
        (f"{node.name} (line {node.lineno})", len(code & set(range(node.lineno, (node.end_lineno or 0) + 1))))
        for node in functions
    ]


def _length(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


if __name__ == "__main__":
    main()
