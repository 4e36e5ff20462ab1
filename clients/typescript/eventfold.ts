/**
 * A client of an eventfold server, in one file and without dependencies: it uses `fetch` alone.
 *
 * It runs in browsers, Node 20, Deno, Bun and edge runtimes. Copy the file into a project, or import it from there.
 *
 *     const store = new Eventfold("http://127.0.0.1:8000", { key: "efk_…" });
 *     await store.append({ type: "Deposited", tags: ["account:a-1"], data: { amount: 80 } });
 *     for await (const event of store.read({ tags: ["account:a-1"] })) console.log(event.position, event.data);
 *
 * An append is safe to repeat, since every event gets its id before it is sent: the client repeats it by itself after a
 * lost connection, and throws AppendUnconfirmed when it has tried often enough.
 */

/** Any value of JSON. A number above 2^53 loses digits in JavaScript: send such numbers as text. */
export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

/** An event to append. `id`: a UUID, by default a new one. `occurred`: when it happened, if not now. */
export interface NewEvent {
  type: string;
  data?: Json;
  tags?: string[];
  id?: string;
  metadata?: { [name: string]: Json };
  occurred?: Date | string;
  version?: number;
}

/** A recorded event. `time`: when it was recorded, in UTC. Without the scope read-payload `data` has no contents. */
export interface RecordedEvent {
  position: number;
  id: string;
  type: string;
  tags: string[];
  data: Json;
  metadata: { [name: string]: Json };
  time: string;
  occurred?: string;
  version?: number;
}

/** An event of `follow`; `cursor` is where to continue after it. */
export interface FollowedEvent extends RecordedEvent {
  cursor: string;
}

/** One alternative of a query: any of these types (none: any type) and all of these tags. */
export interface Item {
  types?: string[];
  tags?: string[];
}

/** Which events: one alternative, or several. An alternative by itself without types and tags means every event. */
export type Query = Item | Item[];

/** A position, or the text of a cursor, which the server verifies. */
export type Place = number | string;

/** The acknowledgement of an append: positions `first` to `last`, inclusive, and the digest of its events. */
export interface Receipt {
  store: string;
  epoch: number;
  first: number;
  last: number;
  time: string;
  ids: string[];
  digest: string;
  repeated: boolean;
}

/** The condition of an append: refuse it if an event that matches `unless` was recorded after `after` (exclusive). */
export interface AppendOptions {
  unless?: Query;
  after?: Place;
  /** A request key: a second append of the same events with it writes nothing and returns the first receipt. */
  key?: string;
  signal?: AbortSignal;
}

/** The bounds of a read. `after` and `before` are exclusive, all others inclusive. */
export interface ReadOptions {
  after?: Place;
  until?: Place | Date;
  before?: number;
  since?: Date | string;
  occurred_since?: Date | string;
  occurred_until?: Date | string;
  /** A line of the filter language, such as `type:Deposited data.amount>100`. */
  filter?: string;
  limit?: number;
  backwards?: boolean;
  signal?: AbortSignal;
}

/** Where a stream of new events begins, and which events it has. */
export interface FollowOptions {
  types?: string[];
  tags?: string[];
  filter?: string;
  /** `now` (default), 0 for the whole log, or a position, exclusive. */
  from?: number | "now";
  /** A cursor or a position, exclusive: where an earlier stream ended. */
  after?: Place;
  /** Called when everything that the log had was delivered; what follows was appended later. */
  onCaughtUp?: (position: number) => void;
  signal?: AbortSignal;
}

/** A registered State: the fields of the question, and those folded from the events up to `position`, inclusive. */
export interface State {
  state: string;
  question: { [name: string]: Json };
  position: number;
  answer: { [name: string]: Json };
}

/** Which rows of a read model: `where` has lines of the filter language, `wait` the `last` of a receipt. */
export interface RowsOptions {
  where?: string | string[];
  order?: string[];
  limit?: number;
  after?: string;
  at?: Place | Date;
  wait?: number;
}

/** A page of rows. `next`: what to give as `after` for the next page; absent on the last one. */
export interface RowsPage {
  rows: { [name: string]: Json }[];
  next?: string;
}

/** Settings of a client. */
export interface Options {
  /** An API key or a JSON web token. */
  key?: string;
  /** The name of the store, if the server has several. */
  store?: string;
  /** How often a request is repeated after a lost connection or an answer that asks for it. Default: 5. */
  retries?: number;
  /** Milliseconds after which an unanswered request counts as lost. Default: 30,000. Streams have no such limit. */
  timeout?: number;
  /** Another implementation of fetch. */
  fetch?: typeof fetch;
}

/** An error that the server reported. `code` is stable; `message` is what happened, `detail` what to do now. */
export class EventfoldError extends Error {
  readonly status: number;
  readonly code: string;
  readonly detail: string;
  readonly fields: { [name: string]: Json };
  readonly requestId?: string;

  constructor(problem: Problem) {
    super(problem.title);
    this.name = new.target.name;
    this.status = problem.status;
    this.code = problem.code;
    this.detail = problem.detail;
    this.fields = problem.fields ?? {};
    this.requestId = problem.request_id;
  }
}

/** Another writer was first: read again, decide again. Nothing was written. */
export class AppendConflict extends EventfoldError {}

/** The answer to an append was lost, so it may have been written. Repeat it with these `ids`: it is written once. */
export class AppendUnconfirmed extends EventfoldError {
  readonly ids: string[];

  constructor(problem: Problem, ids: string[]) {
    super(problem);
    this.ids = ids;
  }
}

/** A cursor of another store, or of history that the store no longer has. Begin again from a position you can trust. */
export class CursorMismatch extends EventfoldError {}

/** The server could not be reached, or it did not answer. */
export class ServerUnreachable extends EventfoldError {}

interface Problem {
  status: number;
  code: string;
  title: string;
  detail: string;
  fields?: { [name: string]: Json };
  request_id?: string;
}

interface Sent {
  method: string;
  path: string;
  body?: unknown;
  accept?: string;
  headers?: { [name: string]: string };
  signal?: AbortSignal;
  stream?: boolean;
}

const FIRST_DELAY = 100;
const LONGEST_DELAY = 5_000;
const SILENCE = 60_000; // milliseconds without a byte after which a stream counts as lost; the server sends one every 15 s
const RETRIED = new Set([429, 502, 503, 504]);

/** A store of an eventfold server. */
export class Eventfold {
  readonly #base: string;
  readonly #options: Options;

  constructor(url: string, options: Options = {}) {
    const base = url.replace(/\/+$/, "") + "/v1";
    this.#base = options.store === undefined ? base : `${base}/stores/${encodeURIComponent(options.store)}`;
    this.#options = options;
  }

  /** Append events, all or none. Throws AppendConflict, AppendUnconfirmed, or another EventfoldError. */
  async append(events: NewEvent | NewEvent[], options: AppendOptions = {}): Promise<Receipt> {
    const { unless, signal, ...rest } = options;
    const given = (Array.isArray(events) ? events : [events]).map((event) => ({
      ...event,
      id: event.id ?? uuid7(),
      ...(event.occurred === undefined ? {} : { occurred: moment(event.occurred) }),
    }));
    const body = { events: given, ...(unless === undefined ? {} : { unless: queryOf(unless) }), ...rest };
    try {
      return (await this.#json({ method: "POST", path: "/events", body, signal })) as Receipt;
    } catch (error) {
      if (error instanceof ServerUnreachable || (error instanceof EventfoldError && error.code === "append-unconfirmed")) {
        throw new AppendUnconfirmed(problemOf(error), given.map((event) => event.id));
      }
      throw error;
    }
  }

  /**
   * Read events that match a query, in order. Nothing is loaded ahead of the loop but a few pages.
   *
   * A read that is interrupted by a lost connection continues after the last event that was delivered.
   */
  async *read(query: Query = {}, options: ReadOptions = {}): AsyncGenerator<RecordedEvent, void, undefined> {
    const { signal, ...bounds } = options;
    let [left, last, failures] = [bounds.limit ?? Infinity, 0, 0];
    while (left > 0) {
      const from = last === 0 ? {} : bounds.backwards ? { before: last } : { after: last };
      const limit = left === Infinity ? {} : { limit: left };
      const body = { query: queryOf(query), ...withMoments(bounds), ...from, ...limit };
      try {
        const accept = "application/x-ndjson";
        const response = await this.#send({ method: "POST", path: "/events/query", body, accept, signal, stream: true });
        for await (const line of linesOf(response)) {
          if (line === "") continue;
          const event = JSON.parse(line) as RecordedEvent & { error?: Problem };
          if (event.error !== undefined && event.position === undefined) throw errorOf(event.error);
          yield event;
          [last, left, failures] = [event.position, left - 1, 0];
        }
        return;
      } catch (error) {
        if (!isTemporary(error) || signal?.aborted || ++failures > this.#retries) throw error;
        await delay(pause(failures), signal);
      }
    }
  }

  /** The event at a position or with an id; null if there is none. */
  async event(place: number | string): Promise<RecordedEvent | null> {
    const path = typeof place === "number" ? `/events/${place}` : `/events/by-id/${encodeURIComponent(place)}`;
    try {
      return (await this.#json({ method: "GET", path })) as RecordedEvent;
    } catch (error) {
      if (error instanceof EventfoldError && error.code === "event-not-found") return null;
      throw error;
    }
  }

  /** The last position of the log, and the cursor after it. */
  async head(): Promise<{ position: number; cursor: string }> {
    return (await this.#json({ method: "GET", path: "/head" })) as { position: number; cursor: string };
  }

  /**
   * Events as they are appended, each once and in order, until the loop is left or `signal` is aborted.
   *
   * It connects again by itself, and continues exactly after the last event. Throws CursorMismatch if the store has
   * lost history that this stream has read: after a restored backup.
   */
  async *follow(options: FollowOptions = {}): AsyncGenerator<FollowedEvent, void, undefined> {
    const { types = [], tags = [], filter, from, onCaughtUp, signal } = options;
    let [place, failures, retry] = [options.after, 0, 2_000];
    while (!signal?.aborted) {
      const query = new URLSearchParams();
      for (const type of types) query.append("types", type);
      for (const tag of tags) query.append("tags", tag);
      if (filter !== undefined) query.set("filter", filter);
      if (place !== undefined) query.set("after", String(place));
      else if (from !== undefined) query.set("from", String(from));
      const stopped = new AbortController();
      const stop = () => stopped.abort();
      signal?.addEventListener("abort", stop);
      let silence = setTimeout(stop, SILENCE);
      try {
        const path = `/follow?${query}`;
        const asked = { method: "GET", path, accept: "text/event-stream", signal: stopped.signal, stream: true };
        const response = await this.#send(asked);
        let message: { [field: string]: string } = {};
        for await (const line of linesOf(response)) {
          clearTimeout(silence);
          silence = setTimeout(stop, SILENCE);
          if (line !== "") {
            const colon = line.indexOf(":");
            if (colon > 0) message[line.slice(0, colon)] = line.slice(colon + 1).replace(/^ /, "");
            continue;
          }
          if (message.retry !== undefined) retry = Number(message.retry);
          if (message.event === "event" && message.data !== undefined && message.id !== undefined) {
            yield { ...(JSON.parse(message.data) as RecordedEvent), cursor: message.id };
          }
          if (message.id !== undefined) place = message.id; // after the yield: an event is done when the loop asks on
          if (message.event === "dropped") place = (JSON.parse(message.data ?? "{}") as { cursor: string }).cursor;
          if (message.event === "caught-up") onCaughtUp?.((JSON.parse(message.data ?? "{}") as { position: number }).position);
          failures = 0;
          message = {};
        }
      } catch (error) {
        if (signal?.aborted) return;
        if (!isTemporary(error)) throw error;
        failures += 1;
      } finally {
        clearTimeout(silence);
        signal?.removeEventListener("abort", stop);
        stopped.abort();
      }
      await delay(Math.max(retry, pause(failures)), signal).catch(() => undefined);
    }
  }

  /** The state of a registered State class, now or at a position or time. */
  async state(name: string, fields: { [field: string]: string } = {}, at?: Place | Date): Promise<State> {
    const query = new URLSearchParams(fields);
    if (at !== undefined) query.set("at", at instanceof Date ? at.toISOString() : String(at));
    return (await this.#json({ method: "GET", path: `/states/${encodeURIComponent(name)}?${query}` })) as State;
  }

  /** A page of rows of a registered read model. */
  async rows(name: string, options: RowsOptions = {}): Promise<RowsPage> {
    const query = new URLSearchParams();
    for (const [field, value] of Object.entries(options) as [string, Place | Date | string[] | undefined][]) {
      for (const each of Array.isArray(value) ? value : [value]) {
        if (each !== undefined) query.append(field, each instanceof Date ? each.toISOString() : String(each));
      }
    }
    return (await this.#json({ method: "GET", path: `/projections/${encodeURIComponent(name)}/rows?${query}` })) as RowsPage;
  }

  /** The response to any request of the API, as JSON; `path` is relative to the store, as `/types`. */
  async request(method: string, path: string, body?: Json): Promise<Json> {
    return (await this.#json({ method, path, body })) as Json;
  }

  get #retries(): number {
    return this.#options.retries ?? 5;
  }

  async #json(sent: Sent): Promise<unknown> {
    return this.#repeated(sent, async (response) => (response.status === 204 ? null : ((await response.json()) as unknown)));
  }

  async #repeated<T>(sent: Sent, take: (response: Response) => Promise<T>): Promise<T> {
    for (let failures = 1; ; failures += 1) {
      try {
        return await take(await this.#send(sent));
      } catch (error) {
        const failed = asUnreachable(error, sent.signal); // a connection that breaks within an answer, too
        if (!isTemporary(failed) || sent.signal?.aborted || failures > this.#retries) throw failed;
        await delay(Math.max(pause(failures), retryAfter(failed)), sent.signal);
      }
    }
  }

  async #send(sent: Sent): Promise<Response> {
    const headers: { [name: string]: string } = { accept: sent.accept ?? "application/json", ...sent.headers };
    if (sent.body !== undefined) headers["content-type"] = "application/json";
    if (this.#options.key !== undefined) headers.authorization = `Bearer ${this.#options.key}`;
    const limits = [
      ...(sent.signal === undefined ? [] : [sent.signal]),
      ...(sent.stream ? [] : [AbortSignal.timeout(this.#options.timeout ?? 30_000)]),
    ];
    const send = this.#options.fetch ?? fetch;
    const body = sent.body === undefined ? undefined : JSON.stringify(sent.body);
    let response: Response;
    try {
      response = await send(this.#base + sent.path, { method: sent.method, headers, body, signal: AbortSignal.any(limits) });
    } catch (error) {
      throw asUnreachable(error, sent.signal);
    }
    if (response.ok) return response;
    const text = await response.text().catch(() => "");
    let problem: Problem;
    try {
      problem = JSON.parse(text) as Problem;
      if (typeof problem.code !== "string") throw new Error("no problem details");
    } catch {
      problem = {
        status: response.status,
        code: RETRIED.has(response.status) ? "server-unreachable" : "unexpected-answer",
        title: `The server, or a proxy before it, answered with status ${response.status}.`,
        detail: "Check the address; if it is right, try again later.",
      };
    }
    const error = errorOf(problem);
    waits.set(error, Number(response.headers.get("retry-after") ?? 0) * 1_000);
    throw error;
  }
}

/** A new id: a UUID of version 7, which begins with the time, so that the ids of new events lie side by side in an index. */
export function uuid7(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  let time = Date.now();
  for (let at = 5; at >= 0; at -= 1, time = Math.floor(time / 256)) bytes[at] = time % 256;
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x70;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

const waits = new WeakMap<EventfoldError, number>();

function retryAfter(error: unknown): number {
  return error instanceof EventfoldError ? (waits.get(error) ?? 0) : 0;
}

function errorOf(problem: Problem): EventfoldError {
  if (problem.code === "append-conflict") return new AppendConflict(problem);
  if (problem.code === "cursor-mismatch") return new CursorMismatch(problem);
  if (problem.code === "server-unreachable") return new ServerUnreachable(problem);
  return new EventfoldError(problem);
}

function problemOf(error: EventfoldError): Problem {
  const { status, code, message, detail, fields, requestId } = error;
  return { status, code: code === "server-unreachable" ? "append-unconfirmed" : code, title: message, detail, fields, request_id: requestId };
}

/** What fetch throws when no answer came, as an error of this client; an abort by the caller stays what it is. */
function asUnreachable(error: unknown, signal: AbortSignal | undefined): unknown {
  if (error instanceof EventfoldError || signal?.aborted) return error;
  return new ServerUnreachable({
    status: 0,
    code: "server-unreachable",
    title: `The server did not answer: ${error instanceof Error ? error.message : String(error)}.`,
    detail: "Check the address and the network, and try again.",
  });
}

function isTemporary(error: unknown): boolean {
  if (error instanceof EventfoldError) return error.status === 0 || RETRIED.has(error.status);
  return error instanceof TypeError || (error instanceof DOMException && error.name !== "SyntaxError");
}

function queryOf(query: Query): { items?: Item[] } {
  if (Array.isArray(query)) return { items: query }; // the server refuses an empty list, and an item without names
  return query.types?.length || query.tags?.length ? { items: [query] } : {};
}

function moment(value: Date | string): string {
  return value instanceof Date ? value.toISOString() : value;
}

function withMoments(bounds: { [name: string]: unknown }): { [name: string]: unknown } {
  return Object.fromEntries(Object.entries(bounds).map(([name, value]) => [name, value instanceof Date ? moment(value) : value]));
}

async function* linesOf(response: Response): AsyncGenerator<string, void, undefined> {
  if (response.body === null) return;
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      yield* lines;
    }
    if (rest !== "") throw new TypeError("the stream ended within a line");
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

/** Milliseconds before the next attempt: twice as long after each failure, and not the same for every client. */
function pause(failures: number): number {
  return failures === 0 ? 0 : Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** (failures - 1)) * (0.5 + Math.random());
}

async function delay(milliseconds: number, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  await new Promise<void>((resolve, reject) => {
    const ended = () => {
      clearTimeout(timer);
      reject(signal?.reason as Error);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", ended);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", ended, { once: true });
  });
}
