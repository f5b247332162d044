"""Fetching a model from a hub: the real client against a server on loopback that speaks the hub's protocol."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from slimtune.models import get_model

REPOSITORY = "HuggingFaceTB/SmolLM2-360M-Instruct"
COMMIT = "a" * 40

FETCH = f"""
import sys
from slimtune.engine.source import local_folder, resolve_source
from slimtune.errors import SlimtuneError
from slimtune.models import get_model
spec = get_model("{REPOSITORY}")
try:
    found = resolve_source(spec, quantisation="16bit", revision=sys.argv[1] or None)
    print(found.revision, sorted(file.name for file in found.folder.iterdir()), local_folder(spec) == found.folder)
except SlimtuneError as error:
    print(error)
    sys.exit(error.exit_code)
"""


DESCRIBE = """
import sys
from slimtune.errors import SlimtuneError
from slimtune.models import get_model
try:
    spec = get_model(sys.argv[2], revision=sys.argv[1] or None)
    print(spec.label, spec.repo, spec.family, spec.params_total, spec.native_context, spec.stop_token)
except SlimtuneError as error:
    print(error)
    sys.exit(error.exit_code)
assert not {"torch", "transformers"} & sys.modules.keys()
"""


class Hub(BaseHTTPRequestHandler):
    """One repository at one commit, or a refusal."""

    files: Path
    refusal: tuple[int, str] | None = None

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        names = sorted(file.name for file in self.files.iterdir() if file.is_file())
        if self.refusal is not None:
            return self._send(self.refusal[0], b"{}", body=body, headers={"X-Error-Code": self.refusal[1]})
        if self.path.startswith(f"/api/models/{REPOSITORY}"):
            if "tree" in self.path:
                tree = [
                    {"type": "file", "path": name, "size": (self.files / name).stat().st_size, "oid": "0" * 40}
                    for name in names
                ]
                return self._send(200, json.dumps(tree).encode(), body=body)
            siblings = [{"rfilename": name} for name in names]
            info = {
                "id": REPOSITORY,
                "modelId": REPOSITORY,
                "sha": COMMIT,
                "siblings": siblings,
                "private": False,
                "disabled": False,
                "tags": [],
                "downloads": 0,
            }
            return self._send(200, json.dumps(info).encode(), body=body)
        if self.path.rsplit("/", 1)[1] not in names:
            return self._send(404, b"", body=body, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        data = (self.files / self.path.rsplit("/", 1)[1]).read_bytes()
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        return self._send(200, data, body=body, headers={"X-Repo-Commit": COMMIT, "ETag": etag})

    def _send(self, status: int, data: bytes, *, body: bool, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


@pytest.fixture
def hub(tiny_model: Path) -> Iterator[ThreadingHTTPServer]:
    handler = type("ThisHub", (Hub,), {"files": tiny_model, "refusal": None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def fetch(
    port: int, home: Path, *, revision: str = "", script: str = FETCH, model: str = REPOSITORY, **environment: str
) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    return subprocess.run(
        [sys.executable, "-c", script, revision, model],
        capture_output=True,
        text=True,
        timeout=120,
        env={**clean, "HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(home), **environment},
    )


def test_a_model_is_fetched_at_one_commit_and_then_works_without_the_hub(hub, tmp_path: Path) -> None:
    first = fetch(hub.server_port, tmp_path)
    assert first.returncode == 0, first.stderr
    assert (
        first.stdout.startswith(COMMIT)
        and "model.safetensors" in first.stdout
        and first.stdout.rstrip().endswith("True")
    )
    hub.shutdown()
    hub.server_close()
    again = fetch(hub.server_port, tmp_path, revision=COMMIT)
    assert again.returncode == 0 and again.stdout == first.stdout


def cached(home: Path) -> set[str]:
    return {file.name for file in home.glob("hub/models--*/snapshots/*/*")}


def test_a_repository_that_is_not_listed_is_a_model_by_its_config_alone(hub, tiny_model: Path, tmp_path: Path) -> None:
    shown = fetch(hub.server_port, tmp_path, script=DESCRIBE, model="Someone/Tiny-Llama")
    spec = get_model(str(tiny_model))
    expected = f"Someone/Tiny-Llama Someone/Tiny-Llama smollm2 {spec.params_total} 1024 <|im_end|>\n"
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, expected, "")
    assert cached(tmp_path) == {"config.json", "tokenizer_config.json", "chat_template.jinja"}  # and no weights
    hub.shutdown()
    hub.server_close()
    assert fetch(hub.server_port, tmp_path, script=DESCRIBE, model="Someone/Tiny-Llama").stdout == expected


def test_a_repository_without_a_tokenizer_config_is_still_a_model(hub, tiny_model: Path, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    config = json.loads((tiny_model / "config.json").read_text())
    (files / "config.json").write_text(json.dumps({**config, "model_type": "mistral"}))
    hub.RequestHandlerClass.files = files
    shown = fetch(hub.server_port, tmp_path / "home", script=DESCRIBE, model="someone/tiny-mistral")
    assert shown.returncode == 0 and " other " in shown.stdout and shown.stdout.endswith(" None\n"), shown.stderr
    (files / "config.json").unlink()
    shown = fetch(hub.server_port, tmp_path / "new", script=DESCRIBE, model="someone/a-gguf")
    assert shown.returncode == 2 and "has no config.json" in shown.stdout


def test_a_repository_that_is_not_there_is_answered_with_the_nearest_known_one(hub, tmp_path: Path) -> None:
    hub.RequestHandlerClass.refusal = (404, "RepoNotFound")
    shown = fetch(hub.server_port, tmp_path, script=DESCRIBE, model="Qwen/Qwen3-8")
    assert "Did you mean 'Qwen/Qwen3-8B'?" in shown.stdout
    assert "mean" not in fetch(hub.server_port, tmp_path, script=DESCRIBE, model="someone/else").stdout


@pytest.mark.parametrize("script", [FETCH, DESCRIBE])
@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ((403, "GatedRepo"), "gated"),
        ((404, "RepoNotFound"), "no repository"),
        ((404, "RevisionNotFound"), "no revision"),
    ],
)
def test_a_refusal_is_a_user_error_that_says_what_to_do(
    hub, tmp_path: Path, refusal: tuple[int, str], words: str, script: str
) -> None:
    hub.RequestHandlerClass.refusal = refusal
    model = REPOSITORY if script == FETCH else "someone/else"
    shown = fetch(
        hub.server_port, tmp_path, revision="nope" if "Revision" in refusal[1] else "", script=script, model=model
    )
    assert shown.returncode == 2, shown.stdout + shown.stderr
    assert words in shown.stdout


@pytest.mark.parametrize(
    ("script", "model", "offline"),
    [(FETCH, REPOSITORY, "0"), (DESCRIBE, "someone/else", "1")],  # "0" waits for the client's retries
)
def test_no_network_and_nothing_cached_is_a_service_that_is_away(
    hub, tmp_path: Path, script: str, model: str, offline: str
) -> None:
    hub.shutdown()
    hub.server_close()
    shown = fetch(hub.server_port, tmp_path, script=script, model=model, HF_HUB_OFFLINE=offline)
    assert shown.returncode == 69 and "not in the cache" in shown.stdout, shown.stdout + shown.stderr
