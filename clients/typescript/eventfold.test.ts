/** Tests of the client against a server: `node --test`, with its address in EVENTFOLD_SERVER. Started by pytest. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { AppendConflict, AppendUnconfirmed, CursorMismatch, Eventfold, EventfoldError, uuid7 } from "./eventfold.ts";

declare const process: { env: { [name: string]: string | undefined } };

const url = process.env.EVENTFOLD_SERVER ?? "";
const store = new Eventfold(url);
let count = 0;
const someone = () => `account:${Date.now()}-${(count += 1)}`;

test("an event is appended and read back with its data, tags, metadata and times", async () => {
  const tag = someone();
  const occurred = new Date("2026-01-02T03:04:05.678Z");
  const event = { type: "Deposited", tags: [tag, "bank:b-1"], data: { amount: 80, note: "ä" }, metadata: { actor: "eve" }, occurred };
  const receipt = await store.append(event);
  assert.equal(receipt.first, receipt.last);
  const found = await store.event(receipt.first);
  assert.deepEqual(found?.data, event.data);
  assert.deepEqual(found?.tags, [tag, "bank:b-1"].sort());
  assert.equal(found?.metadata.actor, "eve");
  assert.equal(new Date(found?.occurred ?? 0).getTime(), occurred.getTime());
  assert.deepEqual(await store.event(receipt.ids[0] ?? ""), found);
  assert.equal(await store.event(uuid7()), null);
});

test("a condition refuses an append when another writer was first", async () => {
  const tag = someone();
  const opened = { type: "Opened", tags: [tag] };
  const { last } = await store.append(opened, { unless: { tags: [tag] } });
  await assert.rejects(store.append(opened, { unless: { tags: [tag] } }), AppendConflict);
  await store.append({ type: "Closed", tags: [tag] }, { unless: { tags: [tag] }, after: last });
  assert.equal((await Array.fromAsync(store.read({ tags: [tag] }))).length, 2);
});

test("an append that is repeated by key or by ids writes nothing", async () => {
  const tag = someone();
  const event = { type: "Opened", tags: [tag], id: uuid7() };
  const first = await store.append(event);
  const again = await store.append(event);
  assert.equal(again.repeated, true);
  assert.equal(again.first, first.first);
  const keyed = await store.append({ type: "Closed", tags: [tag] }, { key: tag });
  assert.equal((await store.append({ type: "Closed", tags: [tag] }, { key: tag })).first, keyed.first);
  assert.equal((await Array.fromAsync(store.read({ tags: [tag] }))).length, 2);
});

test("an append whose answer is lost is repeated, and written once", async () => {
  const tag = someone();
  let lost = 0;
  const losing = new Eventfold(url, {
    fetch: async (...given) => {
      const response = await fetch(...given);
      if (lost++ < 2) {
        await response.text();
        throw new TypeError("the connection was reset");
      }
      return response;
    },
  });
  const receipt = await losing.append({ type: "Opened", tags: [tag] });
  assert.equal(receipt.repeated, true);
  assert.equal((await Array.fromAsync(store.read({ tags: [tag] }))).length, 1);
});

test("an append that is never answered is unconfirmed, and says with which ids to repeat it", async () => {
  const silent = new Eventfold(url, { retries: 1, fetch: () => Promise.reject(new TypeError("no network")) });
  await assert.rejects(silent.append({ type: "Opened" }), (error: unknown) => {
    assert.ok(error instanceof AppendUnconfirmed);
    assert.equal(error.ids.length, 1);
    return true;
  });
});

test("a read goes on after the last event when its connection breaks", async () => {
  const tag = someone();
  await store.append(Array.from({ length: 50 }, (_, n) => ({ type: "Counted", tags: [tag], data: n })));
  let broken = 0;
  const breaking = new Eventfold(url, {
    fetch: async (...given) => {
      const response = await fetch(...given);
      const text = await response.text();
      if (broken++ >= 3) return new Response(text, response);
      return new Response(text.slice(0, Math.floor(text.length / 2)), response);
    },
  });
  const read = await Array.fromAsync(breaking.read({ tags: [tag] }));
  assert.deepEqual(read.map((event) => event.data), Array.from({ length: 50 }, (_, n) => n));
  assert.ok(broken > 3);
  const back = await Array.fromAsync(store.read({ tags: [tag] }, { backwards: true, limit: 3 }));
  assert.deepEqual(back.map((event) => event.data), [49, 48, 47]);
});

test("a follower gets old events and then new ones, each once and in order, also when connections break", async () => {
  const tag = someone();
  const write = (from: number) =>
    store.append(Array.from({ length: 5 }, (_, n) => ({ type: "Counted", tags: [tag], data: from + n })));
  await write(0);
  const stop = new AbortController();
  let [connections, caught] = [0, 0];
  const breaking = new Eventfold(url, {
    fetch: async (...given) => {
      const response = await fetch(...given);
      if (response.body === null || connections++ >= 2) return response;
      let seen = 0;
      const cut = new TransformStream<Uint8Array, Uint8Array>({
        transform(chunk, controller) {
          controller.enqueue(chunk);
          seen += chunk.length;
          if (seen > 700) controller.error(new TypeError("the connection was reset"));
        },
      });
      return new Response(response.body.pipeThrough(cut), response);
    },
  });
  const read: unknown[] = [];
  for await (const event of breaking.follow({ tags: [tag], from: 0, signal: stop.signal, onCaughtUp: () => (caught += 1) })) {
    read.push(event.data);
    if (read.length === 5) await write(5);
    if (read.length === 10) stop.abort();
  }
  assert.deepEqual(read, Array.from({ length: 10 }, (_, n) => n));
  assert.ok(connections > 1 && caught > 0);
});

test("a cursor of another store ends a follower", async () => {
  const { cursor } = await store.head();
  const text = new TextDecoder();
  const decoded = text.decode(Uint8Array.from(atob(cursor.slice(5).replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0)));
  const other = "efc1_" + btoa(decoded.replace(/^[0-9a-f]{32}/, "0".repeat(32))).replaceAll("=", "");
  await assert.rejects(store.follow({ after: other }).next(), CursorMismatch);
});

test("errors have the server's code, the two sentences and the fields", async () => {
  await assert.rejects(store.append({ type: "" }), (error: unknown) => {
    assert.ok(error instanceof EventfoldError);
    assert.equal(error.status, 422);
    assert.equal(error.code, "invalid-event");
    assert.ok(error.message.endsWith(".") && error.detail.endsWith("."));
    return true;
  });
  await assert.rejects(store.read([]).next(), (error: unknown) => error instanceof EventfoldError && error.code === "invalid-query");
  await assert.rejects(new Eventfold(url, { store: "absent" }).head(), (error: unknown) => (error as EventfoldError).code === "store-not-found");
});

test("ids of new events are in the order of time", async () => {
  const first = uuid7();
  await new Promise((resolve) => setTimeout(resolve, 2));
  assert.ok(first < uuid7());
  assert.match(first, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
});
