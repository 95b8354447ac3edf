# SPDX-License-Identifier: BSD-2-Clause
"""The Python of the READMEs, as it stands there, against a real tunnel."""

import re
import threading
from pathlib import Path

import pytest

import mptunnel as mpt
from conftest import ENOUGH, ROOT, until

FILES = [ROOT / "README.md", ROOT / "bindings" / "python" / "README.md"]


def blocks(file: Path) -> list[str]:
    found = re.findall(r"```python\n(.*?)```", file.read_text(), re.DOTALL)
    assert len(found) == 2, f"{file}: a client and a server"
    return sorted(found, key=lambda block: "mpt.listen" in block)


@pytest.mark.parametrize("file", FILES, ids=["project", "package"])
def test_the_client_and_the_server_of_the_readme_work_together(file, tmp_path, monkeypatch, capsys):
    client, server = blocks(file)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "psk").write_text(mpt.genkey() + "\n")
    (tmp_path / "psk").chmod(0o600)
    # Other hosts, ports and interfaces than ours; everything else is word for word.
    listening = []
    real = mpt.listen

    def listen(addr, **options):
        listening.append(real("127.0.0.1:0", **options))
        return listening[0]

    monkeypatch.setattr(mpt, "listen", listen)

    def serve():
        with pytest.raises(mpt.Closed):
            exec(compile(server, f"{file} (server)", "exec"), {})

    thread = threading.Thread(target=serve)
    thread.start()
    until(lambda: listening)
    address = "%s:%d" % listening[0].addresses[0]
    ours = client.replace("vpn.example.org:4000", address)
    ours = re.sub(r"if=(\w+)", r"name=\1", ours)
    assert ours.count("name=") == 2 and address in ours
    exec(compile(ours, f"{file} (client)", "exec"), {})

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "b'hi'"
    assert re.match(r"eth0 (up|down) ", lines[1]) and re.match(r"wwan0 (up|down) ", lines[2])
    listening[0].close()
    thread.join(ENOUGH)
    assert not thread.is_alive()
