// The state of a run from its events: its tokens, its cache, its savings.

/** A token or a latent step. `index`: its place in `said`; `score`: null until it is known. */
function entry(event, index) {
  return {
    index,
    position: event.position,
    text: event.type === "latent" ? "" : event.text,
    kind: event.type === "latent" ? "thought" : event.kind,
    origin: event.type === "latent" ? "latent" : event.origin,
    confidence: event.confidence ?? null,
    score: event.score ?? null,
    top: event.top ?? null,
    gone: null,
  };
}

export class Run {
  /**
   * `state`: the choice from /v1/runs; null before it is known.
   * `thoughts`: whether the model marks its thoughts; without marks all text is the answer.
   */
  constructor(state = null, thoughts = true) {
    this.state = state;
    this.thoughts = thoughts;
    this.said = [];
    this.changed = new Set(); // earlier entries, scored or evicted since the last drawing
    this.byPosition = new Map();
    this.question = state ? state.prompt.length : null;
    this.forgotten = new Set(); // positions of the question that were evicted
    this.held = 0; // slots in use
    this.kvBytes = 0;
    this.peakBytes = 0;
    this.drafted = 0;
    this.accepted = 0;
    this.passes = 0;
    this.thinking = 0;
    this.latents = 0;
    this.evictions = 0;
    this.evicted = 0;
    this.cache = []; // [number of tokens, slots in use]
    this.phases = []; // {from, phase, matchness, skipped}
    this.done = null;
    this.tail = "";
  }

  get tokens() {
    return this.said.length - this.latents;
  }

  /** Slots in use without any eviction. */
  get full() {
    return this.said.length ? this.question + this.said.length - 1 : 0;
  }

  take(event) {
    if (event.type === "token" || event.type === "latent") this.say(event);
    else if (event.type === "score") this.score(event);
    else if (event.type === "evict") this.evict(event);
    else if (event.type === "layers") this.phases.push({ from: this.said.length, ...event });
    else if (event.type === "done") this.end(event);
  }

  say(event) {
    if (this.question === null) this.question = event.position;
    const said = entry(event, this.said.length);
    if (!this.thoughts) said.kind = "answer";
    this.held = event.slots;
    this.said.push(said);
    this.byPosition.set(said.position, said);
    this.kvBytes = event.kv_bytes;
    this.peakBytes = Math.max(this.peakBytes, event.kv_bytes);
    this.drafted += event.drafted;
    this.accepted += said.origin === "draft";
    this.passes += said.origin === "model" || said.origin === "latent";
    this.thinking += event.type === "token" && said.kind === "thought";
    this.latents += event.type === "latent";
    this.cache.push([this.said.length, this.held]);
  }

  score(event) {
    const said = this.byPosition.get(event.position);
    said.score = event.score;
    this.changed.add(said);
  }

  evict(event) {
    for (const position of event.positions) {
      const said = this.byPosition.get(position);
      if (said) {
        said.gone = event.at;
        this.changed.add(said);
      } else {
        this.forgotten.add(position);
      }
    }
    this.held = event.slots;
    this.evictions += 1;
    this.evicted += event.positions.length;
    this.cache.push([this.said.length, this.held]);
  }

  end(event) {
    this.done = event;
    this.tail = event.text; // the text held back: half a stop string, half a character
    const last = this.said.at(-1)?.origin;
    this.passes += last === "draft" || last === "forced"; // the run ended within a draft
  }
}
