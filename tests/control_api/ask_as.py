"""Sends requests as other users. Standard input: a JSON list of {socket, uid, gid, groups, send,
later: {uid}}; standard output: a JSON list of answers, each as text, or "error: ..." if there is
no connection. The identity is the one at the time of connecting; `later` changes it before the
request is sent."""

import json
import os
import socket
import sys


def become(uid, gid, groups):
    os.seteuid(0)
    os.setegid(0)
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)


def ask(one):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(one.get("patience", 20))
    try:
        become(one["uid"], one["gid"], one.get("groups", []))
        connection.connect(one["socket"])
        if "later" in one:
            become(one["later"]["uid"], one["later"]["uid"], [])
        connection.sendall(one["send"].encode())
        answer = b""
        while part := connection.recv(1 << 16):
            answer += part
            if one.get("head_only") and b"\r\n\r\n" in answer:
                break
        return answer.decode()
    except OSError as error:
        return f"error: {type(error).__name__}"
    finally:
        connection.close()
        become(0, 0, [])


json.dump([ask(one) for one in json.load(sys.stdin)], sys.stdout)
