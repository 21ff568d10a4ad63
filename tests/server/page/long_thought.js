// 4,096 tokens through the page's own modules; what was drawn, and how long the slowest took, ms.
async () => {
  const { Run } = await import("/page/run.js");
  const { TokenView } = await import("/page/tokens.js");
  const { Timeline } = await import("/page/timeline.js");
  const root = document.getElementById("column").content.cloneNode(true).firstElementChild;
  document.getElementById("columns").append(root);
  document.getElementById("result").hidden = false;
  const run = new Run();
  const view = new TokenView(root.querySelector(".tokens"), () => {});
  const timeline = new Timeline(root.querySelector(".timeline"), 16);
  view.clear(run);
  let slowest = 0;
  for (let at = 0; at < 4096; at += 1) {
    const drafted = at % 3 > 0;
    run.take({
      type: "token",
      position: 40 + at,
      text: at % 12 ? "1 " : "\n",
      kind: "thought",
      origin: drafted ? "draft" : "model",
      confidence: 1,
      score: drafted ? 1.1 : null,
      slots: 40 + at - run.evicted,
      kv_bytes: 8192 * 512,
      drafted: 0,
    });
    if (!drafted) run.take({type: "score", position: 40 + at, score: 0.5});
    if (at % 200 === 199) {
      const positions = [];
      for (let gone = at - 190; gone < at; gone += 2) positions.push(40 + gone);
      const slots = 41 + at - run.evicted - positions.length;
      run.take({type: "evict", positions, at: 41 + at, slots});
    }
    if (at % 8 === 7) {
      const begun = performance.now();
      view.draw();
      timeline.draw(run);
      slowest = Math.max(slowest, performance.now() - begun);
      if (at % 64 === 63) await new Promise(requestAnimationFrame);
    }
  }
  const { cache } = run;
  return { drawn: root.querySelectorAll("[data-at]").length,
    gone: root.querySelectorAll(".gone").length, evicted: run.evicted, slowest,
    points: root.querySelector("path.line").getAttribute("d").split("L").length,
    turns: cache.length };
}
