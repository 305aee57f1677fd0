"""Livy's REST interface for PySpark sessions, stood in for: one process a session, as Livy 0.9 answers sparkmagic.

It serves where Livy itself cannot be had. What a cell does is real: Python, Spark, S3A.
Usage: python livy.py PORT CONF, a JSON object of Spark's settings
"""

import ast
import base64
import contextlib
import io
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Session:
    """A process that runs statements one after the other."""

    def __init__(self, number, conf, patience):
        """Start the process. conf: dict of Spark's settings. patience: seconds without a request, 0 for ever."""
        self.number, self.statements, self.state = number, [], "starting"
        self.patience, self.asked = patience, time.monotonic()
        command = [sys.executable, __file__, "--repl", json.dumps(conf)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lock = threading.Lock()
        threading.Thread(target=self.wait_for_spark, daemon=True).start()

    def wait_for_spark(self):
        """Become idle when Spark has started, dead where it does not."""
        self.state = "idle" if self.process.stdout.readline() == "ready\n" else "dead"

    def add_statement(self, code):
        """Queue a statement and return it."""
        statement = {"id": len(self.statements), "code": code, "state": "waiting", "output": None, "progress": 0.0}
        self.statements.append(statement)
        threading.Thread(target=self.run, args=[statement], daemon=True).start()
        return statement

    def run(self, statement):
        """Run a statement in the process."""
        with self.lock:
            statement["state"] = "running"
            self.process.stdin.write(json.dumps(statement["code"]) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
            failed = {"status": "error", "ename": "SessionDead", "evalue": "the session has died", "traceback": []}
            statement["output"] = (json.loads(answer) if answer else failed) | {"execution_count": statement["id"]}
            statement["state"], statement["progress"] = "available", 1.0
            if not answer:
                self.state = "dead"

    def is_expired(self):
        """Say whether nobody has asked for it for too long, as Livy judges: whether it is at work does not count."""
        return 0 < self.patience < time.monotonic() - self.asked

    def end(self):
        """End the process."""
        self.process.kill()
        self.process.wait()

    def describe(self):
        """Describe the session as Livy does."""
        return {"id": self.number, "state": self.state, "kind": "pyspark", "appId": None, "appInfo": {}, "log": []}


class Handler(BaseHTTPRequestHandler):
    """The addresses that sparkmagic calls."""

    sessions, conf, numbers = {}, {}, itertools.count()

    def answer(self, status, content):
        """Send a JSON answer."""
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def find(self):
        """Find the session and the number of the statement that the address names, None for each that is missing."""
        numbers = re.fullmatch(r"/sessions(?:/(\d+))?(?:/(?:statements|log)(?:/(\d+))?)?", self.path.split("?")[0])
        session = self.sessions.get(int(numbers[1])) if numbers and numbers[1] else None
        if session:
            session.asked = time.monotonic()
        return session, int(numbers[2]) if numbers and numbers[2] else None

    def do_GET(self):  # noqa: N802 -- the name that http.server calls
        """Answer what is asked of a session or of a statement."""
        session, number = self.find()
        if self.path == "/sessions":
            return self.answer(200, {"sessions": [session.describe() for session in self.sessions.values()]})
        if session is None:
            return self.answer(404, {"msg": "session not found"})
        if self.path.endswith("/log"):
            return self.answer(200, {"id": session.number, "from": 0, "total": 0, "log": []})
        return self.answer(200, session.describe() if number is None else session.statements[number])

    def do_POST(self):  # noqa: N802
        """Open a session or run a statement."""
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        session, _ = self.find()
        if session is None:
            conf, patience = self.conf | content.get("conf", {}), content.get("heartbeatTimeoutInSecond", 0)
            session = Session(next(self.numbers), conf, patience)
            self.sessions[session.number] = session
            return self.answer(201, session.describe())
        return self.answer(201, session.add_statement(content["code"]))

    def do_DELETE(self):  # noqa: N802
        """End a session."""
        session, _ = self.find()
        session.end()
        del self.sessions[session.number]
        self.answer(200, {"msg": "deleted"})

    def log_message(self, *_):
        """Say nothing on the terminal."""


def run_statements(conf):
    """Run statements from standard input, a JSON text a line; answer each with a JSON object on standard output."""
    from pyspark.sql import SparkSession

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Java writes to descriptor 1 what no client must take for an answer
    builder = SparkSession.builder
    for name, value in conf.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    names = {"__name__": "__main__", "spark": spark, "sc": spark.sparkContext}
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(run_statement(json.loads(line), names)), file=answers, flush=True)
    spark.stop()


def run_statement(code, names):
    """Run one statement: what it printed, then its last value; or a picture; or the error."""
    printed = io.StringIO()
    try:
        if code.strip().startswith("%matplot "):
            picture = io.BytesIO()
            names[code.split()[1]].gcf().savefig(picture, format="png")
            return {"status": "ok", "data": {"image/png": base64.b64encode(picture.getvalue()).decode()}}
        with contextlib.redirect_stdout(printed):
            body = ast.parse(code).body
            last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
            exec(compile(ast.Module(body, []), "<stdin>", "exec"), names)  # noqa: S102 -- what Livy is for
            value = eval(compile(ast.Expression(last.value), "<stdin>", "eval"), names) if last else None  # noqa: S307
            if value is not None:
                print(repr(value))
    except Exception as error:
        lines = traceback.format_exc().splitlines(keepends=True)
        return {"status": "error", "ename": type(error).__name__, "evalue": str(error), "traceback": lines}
    return {"status": "ok", "data": {"text/plain": printed.getvalue().rstrip("\n")}}


def end_expired_sessions():
    """End each session that nobody asks for any more; Livy looks once a minute."""
    while True:
        time.sleep(1)
        for session in list(Handler.sessions.values()):
            if session.is_expired():
                session.end()
                del Handler.sessions[session.number]


def main(port, conf):
    """Serve until killed."""
    Handler.conf = json.loads(conf)
    threading.Thread(target=end_expired_sessions, daemon=True).start()
    ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()


if __name__ == "__main__":
    run_statements(json.loads(sys.argv[2])) if sys.argv[1] == "--repl" else main(*sys.argv[1:])
