#!/usr/bin/env python3
"""An authenticator for tunnelhead, in nothing but the Python standard library.

    authenticator.py SOCKET ROUTERS.json

listens on the unix socket SOCKET and lets in whoever ROUTERS.json lists:

    {"branch-1": {"password": "secret", "address": "100.64.7.9", "tags": ["north"]}}

A real one keeps hashes, not passwords. The questions and answers are described in
docs/AUTHENTICATION.md.
"""

import hmac
import http.server
import json
import os
import socketserver
import sys


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open

    def address_string(self):
        return "tunnelhead"

    def do_POST(self):
        length = int(self.headers.get("Content-Length", "0"))
        question = json.loads(self.rfile.read(length))
        answer = json.dumps(decide(question)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


def decide(question):
    with open(sys.argv[2], encoding="utf-8") as file:
        routers = json.load(file)
    name = question["username"]
    router = routers.get(name, {})
    # Compared even for unknown names, so that both take as long.
    right = hmac.compare_digest(
        question["password"].encode(), router.get("password", "-").encode()
    )
    if name not in routers:
        return {"accept": False, "code": "unknown_user"}
    if not right:
        return {"accept": False, "code": "wrong_password"}
    if "refuse" in router:
        return {"accept": False, "reason": router["refuse"]}
    allowed = {key: router[key] for key in ("address", "tags", "tenant") if key in router}
    return {"accept": True, "router": name, **allowed}


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    if os.path.exists(sys.argv[1]):
        os.unlink(sys.argv[1])
    with Server(sys.argv[1], Handler) as server:
        print("listening", flush=True)
        server.serve_forever()
