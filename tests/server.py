"""A process with torch and mmseg in it, which runs scripts in forks of itself."""
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from tiny import ROOT

#: Seconds after which a command is taken for one that hangs.
LIMIT = 400


class Server:
    """The process of test_docs/preloaded.py."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, '-W', 'ignore', str(ROOT / 'tests/test_docs/preloaded.py')], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, 'PYTHONPATH': f'{ROOT}{os.pathsep}{os.environ.get("PYTHONPATH", "")}'})
        assert self.process.stdout.readline() == 'ready\n'

    def run(self, argv: list[str], folder: Path, environment: dict | None = None, options: list[str] | None = None,
            ) -> tuple[int, str]:
        """Exit status and output of `python argv`; options join those of a training."""
        out = folder / 'out.txt'
        task = dict(argv=argv, cwd=str(folder), env=environment or {}, out=str(out), options=options or [])
        self.process.stdin.write(json.dumps(task) + '\n')
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], LIMIT)[0]:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise TimeoutError(f'{argv} did not end within {LIMIT} s:\n{out.read_text()[-2000:]}')
        return int(self.process.stdout.readline()), out.read_text()

    def stop(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()
