// The gauges of a run: bytes, speed, drafts, tokens.

import { count, megabytes, plural, rate, seconds, share } from "./format.js";

export class Gauges {
  constructor(root, slotBytes) {
    this.root = root;
    this.slotBytes = slotBytes;
  }

  /** `elapsed`: seconds so far, or the run's own at its end. */
  draw(run, elapsed) {
    this.kv(run);
    const over = run.done?.seconds || elapsed;
    const first = run.said.length ? rate(run.tokens / over) : "0";
    this.tell("speed", first, seconds(over));
    this.drafts(run);
    const latent = run.latents ? ` · ${plural(run.latents, "latent step")}` : "";
    const thinking = run.thoughts ? `${count(run.thinking)} of them thinking` : "";
    this.tell("words", count(run.tokens), thinking + latent);
  }

  kv(run) {
    const { slotBytes } = this;
    const budget = run.state?.budget ?? null;
    const most = Math.max(run.full, budget ?? 0, 1);
    const kept = run.evicted ? `${plural(run.evicted, "token")} evicted, ` : "";
    const against = budget === null ? "no budget" : `budget ${megabytes(budget * slotBytes)} MB`;
    this.tell(
      "kv",
      megabytes(run.held * slotBytes),
      `${kept}${count(run.held)} in the cache · ${against} · without evictions ` +
        `${megabytes(run.full * slotBytes)} MB · ${megabytes(run.kvBytes)} MB reserved`,
    );
    this.bar(".full", run.full / most);
    this.bar(".held", run.held / most);
    const limit = this.root.querySelector(".bar .limit");
    limit.hidden = budget === null;
    limit.style.left = `${(100 * (budget ?? 0)) / most}%`;
  }

  bar(name, part) {
    this.root.querySelector(`.bar ${name}`).style.width = `${100 * part}%`;
  }

  drafts(run) {
    const apiece = run.passes ? (run.said.length / run.passes).toFixed(1) : "0";
    const told = run.drafted
      ? `${count(run.accepted)} of ${count(run.drafted)} · ${apiece} tokens a pass of the full model`
      : "no drafts";
    this.tell("drafts", run.drafted ? share(run.accepted, run.drafted) : "–", told);
  }

  tell(name, value, more) {
    const gauge = this.root.querySelector(`.${name}`);
    gauge.querySelector("b").textContent = value;
    gauge.querySelector("p").textContent = more;
  }
}
