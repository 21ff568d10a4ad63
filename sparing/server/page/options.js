// The switches: the model's capabilities, and the options of a request.

import { count, megabytes } from "./format.js";

const MODES = { learned: "where the model chooses", confidence: "where it is unsure" };
const WITH = { memory: "a budget", depth: "drafts", latent: "latent steps" };
export const OFF = { memory: {}, depth: { draft: "off" }, latent: { mode: "off" } };

const find = (id) => document.getElementById(id);

/** `288` is a count, `0.25` a share; null for anything else. */
export function budgetOf(text) {
  const given = text.trim().replace(",", ".");
  return /^(\d+|0?\.\d+)$/.test(given) && Number(given) > 0 ? Number(given) : null;
}

export class Switches {
  /** `spares`: the model's `sparing` field of /v1/models. */
  constructor(spares) {
    this.spares = spares;
    fill("policy", spares.policies, spares.labels.memory);
    fill("draft", spares.drafts.filter((name) => name !== "off"), spares.labels.depth);
    const modes = spares.latents.filter((name) => name !== "off");
    fill("mode", modes, MODES);
    find("budget").value = spares.budget;
    find("policy").value = spares.memory.budget ? spares.memory.policy : "auto";
    if (spares.draft !== "off") find("draft").value = spares.draft;
    find("most").value = spares.max_new_tokens;
    if (spares.latent !== "off") find("mode").value = spares.latent;
    find("latent-on").checked = modes.length > 0;
    if (!modes.length) this.disable("latent", "This model has not learned latent steps.");
    for (const name of ["memory", "depth", "latent"]) {
      find(`${name}-on`).addEventListener("change", () => this.show());
    }
    for (const id of ["budget", "most", "policy", "draft"]) {
      find(id).addEventListener("input", () => this.show());
    }
    this.show();
  }

  disable(name, why) {
    find(`${name}-on`).disabled = true;
    find(name).querySelector(".fields").hidden = true;
    find(`${name}-on`).checked = false;
    this.why = { ...this.why, [name]: why };
  }

  get on() {
    return Object.fromEntries(
      ["memory", "depth", "latent"].map((name) => [name, find(`${name}-on`).checked]),
    );
  }

  /** The title of a run: what is switched on, whatever comes of it. */
  get title() {
    const { on } = this;
    const names = Object.keys(on).filter((name) => on[name]).map((name) => WITH[name]);
    return names.length ? `With ${names.join(" and ")}` : "Everything off";
  }

  /** The first error in the form; null without one. */
  get trouble() {
    if (this.on.memory && budgetOf(find("budget").value) === null) {
      return `The budget must be a number of tokens (288) or a share (0.25), got “${find("budget").value}”.`;
    }
    if (!/^[1-9]\d*$/.test(find("most").value.trim())) {
      return `“At most” must be a number of tokens, got “${find("most").value}”.`;
    }
    return null;
  }

  get most() {
    return Number(find("most").value);
  }

  get savings() {
    const { on } = this;
    return {
      memory: on.memory
        ? { budget: budgetOf(find("budget").value), policy: find("policy").value }
        : OFF.memory,
      depth: on.depth ? { draft: find("draft").value } : OFF.depth,
      latent: on.latent ? { mode: find("mode").value } : OFF.latent,
    };
  }

  show() {
    const { on } = this;
    for (const name of Object.keys(on)) {
      find(name).classList.toggle("off", !on[name]);
      for (const field of find(name).querySelectorAll(".fields input, .fields select")) {
        field.disabled = !on[name];
      }
    }
    find("memory-note").textContent = on.memory ? this.room() : "Every token stays in the cache.";
    find("depth-note").textContent = on.depth ? this.drafters() : "Every token is a pass of the full model.";
    find("latent-note").textContent = this.why?.latent ?? "";
  }

  room() {
    const budget = budgetOf(find("budget").value);
    if (budget === null) return "";
    const slots = budget < 1 ? Math.trunc(budget * this.most) : budget;
    const beside = budget < 1 ? " beside the question" : "";
    const learned = this.spares.policies.includes("learned");
    const predicted = learned ? "" : " This model has no importance predictor.";
    const room = megabytes(slots * this.spares.slot_bytes);
    return `${count(slots)} tokens${beside}, ${room} MB.${predicted}`;
  }

  drafters() {
    return this.spares.why_not.depth ?? "";
  }
}

function fill(id, names, words) {
  find(id).replaceChildren(...names.map((name) => new Option(words[name] ?? name, name)));
}
