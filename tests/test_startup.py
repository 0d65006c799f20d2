"""What happens when the application is served, and that nothing does when it is only imported."""

from pathlib import Path
from unittest.mock import patch

import click
from click.testing import CliRunner

from pwreset import create_app, startup


def test_a_command_named_run_of_another_program_serves_nothing(tmp_path: Path) -> None:
    """The mutation tests have one: a worker thread would start in it, and a database without tables would end it."""

    @click.command("run")
    def command() -> None:
        create_app({"INSTANCE_PATH": tmp_path})

    with patch.object(startup, "start_worker") as start_worker:
        done = CliRunner().invoke(command)
    assert (done.exit_code, done.output) == (0, "")
    start_worker.assert_not_called()
