// Coracle from JavaScript, with node alone: put, get, and a retry with a session.
//
// Usage: node client.mjs [HOST PORT]
import { randomUUID } from "node:crypto";
import { connect } from "node:net";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

const [host = "127.0.0.1", port = "3001"] = process.argv.slice(2);
let socket, replies; // One connection for all requests: a connection reads its own writes.

// Sends a request and returns the reply. Throws when it is not known what became of it.
async function ask(request) {
  if (!socket || socket.destroyed) {
    socket = connect(Number(port), host).setTimeout(10_000, () => socket.destroy()).on("error", () => {});
    replies = createInterface(socket)[Symbol.asyncIterator]();
  }
  socket.write(JSON.stringify(request) + "\n");
  const { value, done } = await replies.next();
  if (done) throw new Error("the connection ended");
  return JSON.parse(value);
}

// Retries a write until its outcome is known. The server applies it once, however often it arrives.
async function write(request, session) {
  for (let attempt = 0; attempt < 10; attempt += 1) {
    const reply = await ask({ ...request, session }).catch(() => socket.destroy() && null);
    if (reply?.status === "ok" || (reply?.definite && !["no_leader", "busy"].includes(reply.error))) return reply;
    await sleep(100 * attempt);
  }
  throw new Error("the outcome is unknown");
}

console.log("put", (await ask({ op: "put", key: "snack", value: "chips" })).status);
console.log("get", (await ask({ op: "get", key: "snack" })).value);
const client = randomUUID(); // A name that no other client uses.
const create = { op: "cas", key: client, expect: null, value: 1 };
console.log("first", (await write(create, { client, seq: 1 })).status);
console.log("retry", (await write(create, { client, seq: 1 })).status);
console.log("again", (await write(create, { client, seq: 2 })).error);
socket.end();
