// Numbers as text.

export const count = (n) => Math.round(n).toLocaleString("en");

export const megabytes = (bytes) => (bytes / 1e6).toFixed(bytes < 1e8 ? 2 : 0);

export const seconds = (s) => `${s.toFixed(s < 10 ? 2 : 1)} s`;

export const rate = (perS) => (perS < 10 ? perS.toFixed(1) : count(perS));

export const share = (part, whole) => (whole ? `${Math.round((100 * part) / whole)}%` : "–");

export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** How much less or more `a` is than `b`. */
export function factor(a, b) {
  if (!(a > 0) || !(b > 0)) return "";
  if (a === b) return "the same";
  const [ratio, word] = a < b ? [b / a, "less"] : [a / b, "more"];
  if (ratio < 1.1) return `${(100 * Math.abs(1 - a / b)).toFixed(1)}% ${word}`;
  return `${ratio.toFixed(ratio < 10 ? 1 : 0)}× ${word}`;
}
