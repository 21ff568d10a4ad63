// One run on the page: asks, follows the events, draws once a frame, and replays the run.

import { Refusal } from "./api.js";
import { Gauges } from "./gauges.js";
import { Run } from "./run.js";
import { Timeline } from "./timeline.js";
import { TokenView } from "./tokens.js";
import { plural } from "./format.js";

const REPLAY_S = 12; // at most
const REPLAY_RATE = 60; // events a second, at least
const ENDS = {
  stop: "finished",
  length: "ended at its limit of tokens",
  budget: "ended: no token could be evicted",
  context: "ended at the model's context",
  interrupted: "stopped",
};

export class Column {
  /** `model`: from /v1/models. */
  constructor(title, model, calm) {
    const template = document.getElementById("column").content;
    this.root = template.cloneNode(true).firstElementChild;
    this.find = (selector) => this.root.querySelector(selector);
    this.calm = calm;
    this.find("h2").textContent = title;
    this.find(".thought").setAttribute("aria-label", `Thought, ${title}: arrow keys go through it`);
    this.thoughts = model.sparing.thoughts;
    this.find(".thinking").hidden = this.find(".thought").hidden = !this.thoughts;
    this.run = new Run(null, this.thoughts);
    this.events = [];
    this.taken = 0;
    this.gauges = new Gauges(this.find(".gauges"), model.sparing.slot_bytes);
    this.timeline = new Timeline(this.find(".timeline"), model.sparing.layers);
    this.view = new TokenView(this.find(".tokens"), (text) => {
      this.find(".about").textContent = text;
    });
    this.find(".play").addEventListener("click", () => this.play());
    this.find("input").addEventListener("input", ({ target }) => this.goTo(Number(target.value)));
    this.status("waiting");
  }

  /** Ask and draw to the end; returns the answer's `sparing` field. Rejects with a Refusal. */
  async ask(api, body, signal, began) {
    this.begun = performance.now();
    let id = null;
    let told = null;
    let followed = Promise.resolve();
    try {
      for await (const chunk of api.chat(body, signal)) {
        if (!id) {
          id = chunk.id;
          began(id);
          followed = this.follow(api, id, signal);
          followed.catch(() => {});
        }
        told = chunk.choices[0]?.sparing ?? told;
      }
      await followed;
    } catch (error) {
      await Promise.race([followed.catch(() => {}), new Promise((r) => setTimeout(r, 500))]);
      this.finish(error.code === "cancelled" || error.name === "AbortError" ? "stopped" : "failed");
      throw error;
    }
    this.finish(ENDS[told?.finish_reason] ?? "finished", told);
    return told;
  }

  async follow(api, id, signal) {
    const state = await api.get(`/v1/runs/${id}`, signal);
    this.state = state.choices[0];
    this.restart();
    for await (const event of api.events(id, signal)) {
      this.events.push(event);
      this.drawSoon();
    }
    if (this.events.at(-1)?.type !== "done") throw new Refusal("The events ended before the end of the run.");
  }

  restart() {
    this.run = new Run(this.state, this.thoughts);
    this.taken = 0;
    this.view.clear(this.run);
  }

  drawSoon() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.draw(this.events.length);
    });
  }

  /** Draw the state after `upTo` events. */
  draw(upTo) {
    if (upTo < this.taken) this.restart();
    while (this.taken < upTo) this.run.take(this.events[this.taken++]);
    this.view.draw();
    const elapsed = Math.max((performance.now() - this.begun) / 1000, 0.001);
    const over = this.over ? this.over.seconds : elapsed;
    this.gauges.draw(this.run, over);
    this.timeline.draw(this.run);
    if (!this.over && this.run.said.length) {
      this.status(this.run.said.at(-1).kind === "answer" ? "answering" : "thinking");
    }
  }

  status(text) {
    const place = this.find(".status");
    if (place.textContent !== text) place.textContent = text;
    this.root.dataset.status = text.split(/[ :]/)[0];
  }

  finish(how, told = null) {
    if (this.frame) cancelAnimationFrame(this.frame);
    this.frame = null;
    const elapsed = (performance.now() - this.begun) / 1000;
    this.over = { seconds: told?.stats.seconds ?? elapsed };
    this.draw(this.events.length);
    this.status(told ? `${how}: ${used(told.stats)}` : how);
    this.find(".notice").hidden = !told?.notice;
    this.find(".notice").textContent = told?.notice ?? "";
    if (!this.run.said.length) return;
    this.find(".replay").hidden = false;
    this.find(".play").hidden = this.calm;
    const slider = this.find("input");
    slider.max = this.events.length;
    slider.value = this.events.length;
    this.find("output").textContent = plural(this.run.said.length, "token");
  }

  /** After the last run: a run that was not asked, or said nothing, shows no empty gauges. */
  close() {
    if (!this.begun) this.status("not asked");
    this.root.classList.toggle("empty", !this.run.said.length);
  }

  goTo(at) {
    this.playing = null;
    this.show(at);
  }

  show(at) {
    this.draw(at);
    this.find("input").value = at;
    this.find("output").textContent = plural(this.run.said.length, "token");
  }

  /** Replay from the beginning, slowly enough to watch, or pause. */
  play() {
    const playing = (this.playing = this.playing ? null : {});
    this.find(".play").textContent = playing ? "Pause" : "Replay";
    if (!playing) return;
    const total = this.events.length;
    const from = this.taken < total ? this.taken : 0;
    const rate = Math.max(REPLAY_RATE, total / REPLAY_S);
    const begun = performance.now();
    const step = (now) => {
      if (this.playing !== playing) return;
      const at = Math.min(total, from + Math.floor(((now - begun) / 1000) * rate));
      this.show(at);
      if (at < total) requestAnimationFrame(step);
      else this.play();
    };
    requestAnimationFrame(step);
  }

  get answer() {
    return this.run.said
      .filter(({ kind }) => kind === "answer")
      .map(({ text }) => text)
      .join("") + this.run.tail;
  }
}

/** Policy and drafter of a run, and whether they had anything to do. */
function used(stats) {
  const idle = [];
  if (stats.policy !== "full" && !stats.evicted_tokens) idle.push("nothing had to be evicted");
  if (stats.draft !== "off" && !stats.drafted) idle.push("nothing was drafted");
  return [`policy ${stats.policy}, drafter ${stats.draft}`, ...idle].join("; ");
}
