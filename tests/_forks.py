"""Fresh Python processes that need not import Numba: forks of one that has it.

A fork has none of our modules, nor those of a test; environment, working folder and output are its
own. Where there is no fork, scripts run in new interpreters.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

#: Imports what every script would, then forks for each request: one line of JSON each way.
_PARENT = """
import json, os, sys, tempfile, traceback
import numba
from numba.core import config

numba.njit(lambda x: x + 1)(1)  # what Numba loads when it compiles first
config.reload_config()

def child(request, out, err):
    for stream, number in ((out, 1), (err, 2)):
        os.dup2(stream.fileno(), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["folder"])
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    config.reload_config()
    tempfile.tempdir = None  # found anew where TMPDIR says
    code = 1
    try:
        sys.path[0] = ""
        exec(compile(request["script"], "<script>", "exec"), {"__name__": "__main__"})
        code = 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(code)

for line in sys.stdin:
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        number = os.fork()
        if not number:
            child(json.loads(line), out, err)
        status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
        out.seek(0), err.seek(0)
        answer = {"code": status, "out": out.read(), "err": err.read()}
    print(json.dumps(answer), flush=True)
"""


class Forks:
    """Runs scripts in forks of one interpreter; to be closed."""

    def __init__(self) -> None:
        self.parent: subprocess.Popen[str] | None = None
        if hasattr(os, "fork"):
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self.parent = subprocess.Popen([sys.executable, "-c", _PARENT], text=True, **pipes)

    def run(self, script: str, folder: Path, env: dict[str, str]) -> tuple[str, str]:
        """What a script says on both streams, run in a folder; it must end well."""
        if self.parent is None:
            done = subprocess.run(
                [sys.executable, "-c", script],
                cwd=folder,
                env=env,
                capture_output=True,
                text=True,
                check=True,
                timeout=300,
            )
            return done.stdout, done.stderr
        assert self.parent.stdin is not None
        assert self.parent.stdout is not None
        request = {"script": script, "folder": str(folder), "env": env}
        print(json.dumps(request), file=self.parent.stdin, flush=True)
        answer = json.loads(self.parent.stdout.readline())
        assert answer["code"] == 0, answer["err"]
        return answer["out"], answer["err"]

    def close(self) -> None:
        if self.parent is not None:
            self.parent.communicate()
