"""Serve an engine over pipes: a call is a line of JSON on stdin, its answer one on stdout.

    python serve.py SCRIPT

    {"call": "load", "arguments": {"model": "a.gguf"}}   ->   {"value": {"version": "1.0"}}
                                                         or   {"error": "OSError: no such file"}

A script defines ``Baseline``, whose methods are the calls. It is imported at the first call, so
that a missing package is an answer too. Whatever the engine prints goes to stderr.
"""

import json
import os
import runpy
import sys


def serve(script: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    baseline = None
    for line in sys.stdin:
        call = json.loads(line)
        try:
            baseline = baseline or runpy.run_path(script)["Baseline"]()
            answer = {"value": getattr(baseline, call["call"])(**call["arguments"])}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(sys.argv[1])
