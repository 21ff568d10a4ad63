// Server-sent events of a response: EventSource can neither POST nor send a key.

/** Yields {id, event, data} of each message, without comments. */
export async function* messages(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const message = fields(block);
        if (message.data !== undefined) yield message;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function fields(block) {
  const found = {};
  for (const line of block.split("\n")) {
    const colon = line.indexOf(": ");
    if (colon > 0) found[line.slice(0, colon)] = line.slice(colon + 2);
  }
  return found;
}
