"""Runs both services from their images as the rendered manifests say: the root
read-only and alone, the numeric user, no capability, their variables, their files
where they are mounted. There is no database, so each must live and not be ready,
and stop within its grace period. In a network of its own each: the addresses of
the manifests are nobody else's there.

    run_test.py RENDERED.yaml IMAGES
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PATIENCE_SECONDS = 30
START = """
set -eu
ip link set lo up
mount --bind "$1" "$1"
mount --bind "$2" "$1/etc/sluice"
mount -o remount,ro,bind "$1/etc/sluice"
mount -o remount,ro,bind "$1"
root="$1" program="$3"
exec setpriv --no-new-privs --bounding-set=-all,+sys_chroot,+setuid,+setgid \
    chroot --userspec=65532:65532 --groups=65532 "$root" "$program"
"""
ASK = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", 7411, timeout=2)
connection.request("GET", sys.argv[1])
print(connection.getresponse().status)
"""


def objects(rendered):
    """Read by the checks' own Python, which has YAML."""
    python = next(Path("target/tools/deploy").glob("*/bin/python"))
    read = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))"
    return json.loads(subprocess.check_output([python, "-c", read, rendered]))


def keys_file(sluice, path):
    """A keys file made with the command's image; the token of ingest."""
    made = subprocess.run(
        ["chroot", "--userspec=65532:65532", sluice, "/usr/local/bin/sluice", "keys", "new", "--all-organisations", "--scope", "intake.write"],
        check=True,
        capture_output=True,
        text=True,
    )
    token, _, entry = made.stdout.partition("\n")
    path.write_text(entry)
    return token


class Pod:
    """A service that runs from its image."""

    def __init__(self, service, rendered, images):
        name = f"sluice-{service}"
        find = lambda kind, called: next(o for o in rendered if o["kind"] == kind and o["metadata"]["name"] == called)
        self.pod = find("Deployment", name)["spec"]["template"]["spec"]
        container = self.pod["containers"][0]
        variables = dict(find("ConfigMap", container["envFrom"][0]["configMapRef"]["name"])["data"])
        variables["SLUICE_DATABASE_URL"] = "postgres://sluice@127.0.0.1:5432/nobody"
        root, files = images / service / "running", images / service / "files"
        for folder in (root, files):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(images / service / "root", root, symlinks=True)
        (root / "etc/sluice").mkdir()
        for folder in ("keys", "intake", "storage"):
            (files / folder).mkdir(parents=True)
        (files / "intake/token").write_text(keys_file(images / "sluice/root", files / "keys/keys.toml"))
        for number, file in enumerate(("storage-keys.toml", "signing-keys.toml")):
            (files / "storage" / file).write_text(f'[[key]]\nid = "k{number}"\nsecret = "{os.urandom(32).hex()}"\n')
        self.process = subprocess.Popen(
            ["unshare", "--net", "--mount", "--", "bash", "-c", START, "-", root.absolute(), files.absolute(), f"/usr/local/bin/{name}"],
            env={"PATH": os.environ["PATH"], **variables},
            stderr=(images / service / "log").open("w"),
        )
        self.name = name

    def ask(self, path):
        """The status of the admin port, from inside the pod's network."""
        pid = str(self.process.pid)
        answer = subprocess.run(["nsenter", "--target", pid, "--net", sys.executable, "-c", ASK, path], capture_output=True, text=True)
        return answer.stdout.strip()

    def until(self, path, status):
        end = time.monotonic() + PATIENCE_SECONDS
        while (told := self.ask(path)) != status:
            if self.process.poll() is not None or time.monotonic() > end:
                sys.exit(f"{self.name}: {path} told {told!r} and not {status}")
            time.sleep(0.1)

    def privileges(self):
        """It runs as the manifests say."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines())
        assert fields["Uid"].split() == ["65532"] * 4, fields["Uid"]
        assert fields["NoNewPrivs"] == "1" and fields["CapEff"].strip("0") == "", fields
        mounts = Path(f"/proc/{self.process.pid}/mountinfo").read_text().splitlines()
        writable = [line for line in mounts if line.split()[4] in ("/", "/etc/sluice") and not line.split()[5].startswith("ro")]
        assert not writable and len(mounts) >= 2, mounts

    def stop(self):
        self.process.send_signal(signal.SIGTERM)

    def stopped(self):
        code = self.process.wait(self.pod["terminationGracePeriodSeconds"])
        assert code == 0, f"{self.name} ended with {code}"


def main():
    rendered, images = objects(sys.argv[1]), Path(sys.argv[2])
    pods = [Pod(service, rendered, images) for service in ("ingest", "results")]
    try:
        for pod in pods:
            pod.until("/livez", "200")
            assert pod.ask("/readyz") == "503", "ready without a database"
            pod.privileges()
        for pod in pods:
            pod.stop()
        for pod in pods:
            pod.stopped()
            print(f"{pod.name}: ran from its image, lived without a database, stopped in time")
    finally:
        for pod in pods:
            pod.process.kill()


if __name__ == "__main__":
    main()
