"""A process that has imported everything, and runs commands of the program in forks of itself.

Standard input has one JSON list of calls per line, which run at the same time; the answer is the
list of their outcomes. A call may be killed at a file event: before it, or with half of a file
written.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import pkgutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

EVENTS = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CLONE_NEWPID = 0x20000000


def import_everything():
    """Imports all modules, and makes the entry of a model small, so that its import is quick."""
    import fseft

    for module in pkgutil.walk_packages(fseft.__path__, "fseft."):
        if "templates" not in module.name and "__main__" not in module.name:
            importlib.import_module(module.name)
    for name in ("blosc2", "monai.networks.nets", "nibabel", "scipy.ndimage", "scipy.special"):
        importlib.import_module(name)
    from fseft.registry import Registration, registry
    from tests import checkpoint_files

    offer = registry().resolve("model", "suprem_unet")
    hparams = {**offer.spec.card.hparams, **checkpoint_files.SMALL["suprem-unet"]}
    card = offer.spec.card.model_copy(update={"hparams": hparams})
    registration = Registration(replace(offer.spec, card=card), offer.source)
    registry()._registrations["model", "suprem_unet"] = [registration]


def count_events(root, kill_at, half):
    """Counts the file events below a folder; at the given one, kills the process.

    Args:
        root: The folder.
        kill_at: Number of the event, from 1 on; 0 for none.
        half: Whether a file that is opened for writing is left with half of its content.
    """
    count, process = [0], os.getpid()

    def hook(event, arguments):
        if event not in EVENTS or not arguments:
            return
        path = arguments[0]
        if not isinstance(path, str | bytes | os.PathLike):
            return
        path = os.fsdecode(path)
        below = os.path.join(os.getcwd(), path).startswith(root)  # noqa: PTH118, PTH109
        if not below or (event == "open" and not arguments[2] & WRITES):
            return
        count[0] += 1
        if count[0] != kill_at:
            return
        if half and event == "open" and not path.endswith(".lock"):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.write(descriptor, b'{"half')
        os.kill(process, signal.SIGKILL)

    sys.addaudithook(hook)
    return count


def become_pid_one():
    """Continues with process id 1 in a PID namespace, or names this process 1 if none is allowed."""
    unshare = getattr(ctypes.CDLL(None), "unshare", None)
    if unshare is None or unshare(CLONE_NEWPID) != 0:
        os.getpid = lambda: 1
        return
    process = os.fork()
    if process:
        _, status = os.waitpid(process, 0)
        os._exit(abs(os.waitstatus_to_exitcode(status)))
    assert os.getpid() == 1


def run(call, report):
    """Runs a call in this process, and writes the number of its file events."""
    os.chdir(call["folder"])
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{report}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), number)
    from fseft.cli.main import main

    sys.argv = ["fseft", *call["arguments"]]
    if call.get("pid_one"):
        become_pid_one()
    count = count_events(call["folder"], call.get("kill_at", 0), call.get("half", False))
    status = 1
    try:
        main()
    except SystemExit as end:
        status = int(end.code or 0)
    sys.stdout.flush()
    sys.stderr.flush()
    Path(f"{report}.events").write_text(str(count[0]))
    os._exit(status)


def outcome(process, report):
    """Waits for a process, and reads what it printed."""
    _, status = os.waitpid(process, 0)
    files = {name: Path(f"{report}.{name}") for name in ("out", "err", "events")}
    texts = {name: file.read_text() if file.is_file() else "" for name, file in files.items()}
    for file in files.values():
        file.unlink(missing_ok=True)
    return {"status": os.waitstatus_to_exitcode(status), **texts}


def main():
    """Serves until standard input ends."""
    import_everything()
    for line in sys.stdin:
        processes = []
        for number, call in enumerate(json.loads(line)):
            report = f"{call['folder']}.{number}"
            process = os.fork()
            if process == 0:
                run(call, report)
            processes.append((process, report))
        outcomes = [outcome(process, report) for process, report in processes]
        print(json.dumps(outcomes), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
