"""Other users of the machine can read none of PixyProxy's files, whatever umask it was started with."""

import json
import stat
import subprocess
from pathlib import Path

from tests.support.process import PROGRAM, environment_of, running_server
from tests.support.server import make_settings

USUAL_UMASK = 0o022


def modes_below(*folders: Path) -> dict[str, str]:
    """Return the modes of folders and their contents, as ``ls -l`` shows them."""
    paths = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    return {path.name: stat.filemode(path.lstat().st_mode) for path in paths}


def test_no_other_user_can_read_any_file_of_pixyproxy(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    issued = subprocess.run(
        [PROGRAM, "bootstrap", "--json"],
        cwd=tmp_path,
        env=environment_of(settings),
        capture_output=True,
        check=True,
        umask=USUAL_UMASK,
    )
    key = json.loads(issued.stdout)["api_key"]
    with (
        running_server(settings, tmp_path, umask=USUAL_UMASK) as server,
        server.client(key) as client,
    ):
        made = client.post("/image", json={"prompt": "a fox", "size": "64x64", "visibility": "private"}).json()
        modes = modes_below(settings.data_dir, settings.images)
    assert {"var", "pixyproxy.db", "pixyproxy.db-wal", "spool", "images", f"{made['guid']}.png"} <= modes.keys()
    assert {name: mode for name, mode in modes.items() if mode[4:] != "------"} == {}
