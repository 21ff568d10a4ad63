// A client of the server's API; its errors are one line.

import { messages } from "./sse.js";

/** An error with a one-line message, the HTTP `status` (0: no answer) and a `code`. */
export class Refusal extends Error {
  constructor(message, status = 0, code = null) {
    super(message);
    Object.assign(this, { status, code });
  }
}

const GONE = "The server does not answer: is `sparing serve` still running?";
const CUT = "The connection closed before the end of the answer.";

export class Api {
  key = "";

  async get(path, signal) {
    return (await this.send(path, { signal })).json();
  }

  async post(path, body, signal) {
    const given = { method: "POST", signal };
    if (body !== undefined) {
      given.body = JSON.stringify(body);
      given.headers = { "content-type": "application/json" };
    }
    return this.send(path, given);
  }

  /** The chunks of a chat completion. */
  async *chat(body, signal) {
    const response = await this.post("/v1/chat/completions", { ...body, stream: true }, signal);
    for await (const message of this.stream(response)) {
      if (message.data === "[DONE]") return;
      const chunk = JSON.parse(message.data);
      if (chunk.error) throw refusal(chunk, 500);
      yield chunk;
    }
    throw new Refusal(CUT);
  }

  /** The engine's events of a run. */
  async *events(run, signal) {
    const response = await this.send(`/v1/runs/${run}/events`, { signal });
    for await (const message of this.stream(response)) yield JSON.parse(message.data);
  }

  async *stream(response) {
    try {
      yield* messages(response);
    } catch (error) {
      throw error.name === "AbortError" ? error : new Refusal(CUT);
    }
  }

  async send(path, { headers = {}, ...given }) {
    const key = this.key ? { authorization: `Bearer ${this.key}` } : {};
    let response;
    try {
      response = await fetch(path, { ...given, headers: { ...headers, ...key } });
    } catch (error) {
      throw error.name === "AbortError" ? error : new Refusal(GONE);
    }
    if (response.ok) return response;
    throw refusal(await response.json().catch(() => ({})), response.status);
  }
}

function refusal(body, status) {
  const { message, code } = body.error ?? {};
  return new Refusal(message ? sentence(message) : `The server answers ${status}.`, status, code);
}

function sentence(text) {
  return text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}
