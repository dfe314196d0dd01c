"""The little of a Kubernetes API that `kubectl get job` asks for, so that what `apply`
makes of Jobs' conditions is tried with the real kubectl. Prints its port.

    jobs_server.py JOBS.json      {name: [conditions that are true]}, read at each request;
                                  a Job without any has a pod that runs
"""

import http.server
import json
import sys

BATCH = {"groupVersion": "batch/v1", "version": "v1"}
JOBS = {"name": "jobs", "singularName": "job", "kind": "Job", "namespaced": True, "verbs": ["get", "list", "watch"]}
DISCOVERY = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [{"name": "batch", "versions": [BATCH], "preferredVersion": BATCH}],
    },
    "/apis/batch/v1": {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "batch/v1", "resources": [JOBS]},
}


def jobs():
    with open(sys.argv[1]) as file:
        given = json.load(file)
    item = lambda name, types: {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": "sluice"},
        "status": {"ready": int(not types), "conditions": [{"type": t, "status": "True"} for t in types]},
    }
    return {"apiVersion": "batch/v1", "kind": "JobList", "metadata": {}, "items": [item(*job) for job in given.items()]}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.split("?")[0]
        answer = jobs() if path == "/apis/batch/v1/namespaces/sluice/jobs" else DISCOVERY.get(path)
        self.send_response(404 if answer is None else 200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer or {}).encode())

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
