"""Requests one after the other, run inside a pod with python3, standard library only.

    python3 - SECONDS HOST:PORT < requests.py

Asks for `/` (allowed) and `/foo` (denied) in turns, each on a connection of its own, without a pause. "ready" is
printed after the first answer to `/`; one JSON line at the end: {"allowed": {outcome: n}, "denied": {outcome: n},
"last": [the last ten outcomes of `/`], "longest_s": …}, where an outcome is a status code, or the error's name.
`longest_s`: the longest time without an answer to `/`.
"""

import http.client
import json
import sys
import time
from collections import Counter


def ask(target, path):
    connection = http.client.HTTPConnection(target, timeout=3)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return str(answer.status)
    except Exception as exc:
        return type(exc).__name__
    finally:
        connection.close()


def main():
    seconds, target = float(sys.argv[1]), sys.argv[2]
    allowed, denied, last = Counter(), Counter(), []
    end, answered, longest_s, ready = time.monotonic() + seconds, time.monotonic(), 0.0, False
    while time.monotonic() < end:
        outcome = ask(target, "/")
        allowed[outcome] += 1
        last = [*last[-9:], outcome]
        if outcome == "200":
            longest_s, answered = max(longest_s, time.monotonic() - answered), time.monotonic()
            if not ready:
                ready = True
                print("ready", flush=True)
        denied[ask(target, "/foo")] += 1
    print(json.dumps({"allowed": allowed, "denied": denied, "last": last, "longest_s": round(longest_s, 2)}))


main()
