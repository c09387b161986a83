"""Coracle from Python, with the standard library alone: put, get, and a retry with a session.

Usage: python3 client.py [HOST PORT]"""
import json, socket, sys, time, uuid

ADDRESS = (sys.argv[1], int(sys.argv[2])) if len(sys.argv) == 3 else ("127.0.0.1", 3001)
connection = None  # One for all requests: a connection reads its own writes.

def ask(request):
    """Sends a request and returns the reply. OSError or ValueError: it is not known what became of it."""
    global connection
    try:
        connection = connection or socket.create_connection(ADDRESS, timeout=10).makefile("rw", encoding="utf-8")
        connection.write(json.dumps(request) + "\n")
        connection.flush()
        return json.loads(connection.readline())
    except (OSError, ValueError):
        connection = None
        raise

def write(request, session):
    """Retries a write until its outcome is known. The server applies it once, however often it arrives."""
    for attempt in range(10):
        try:
            reply = ask({**request, "session": session})
            if reply["status"] == "ok" or (reply["definite"] and reply["error"] not in ("no_leader", "busy")):
                return reply
        except (OSError, ValueError):
            pass
        time.sleep(0.1 * attempt)
    raise TimeoutError("the outcome is unknown")

print("put", ask({"op": "put", "key": "snack", "value": "chips"})["status"])
print("get", ask({"op": "get", "key": "snack"})["value"])
client = str(uuid.uuid4())  # A name that no other client uses.
create = {"op": "cas", "key": client, "expect": None, "value": 1}
print("first", write(create, {"client": client, "seq": 1})["status"])
print("retry", write(create, {"client": client, "seq": 1})["status"])
print("again", write(create, {"client": client, "seq": 2})["error"])
