// Numbers, sizes, ages and times as people read them, in the page's language.

const language = document.documentElement.lang;
const whole = new Intl.NumberFormat(language);
const part = new Intl.NumberFormat(language, { maximumFractionDigits: 1 });
const moment = new Intl.DateTimeFormat(language, {
  timeZone: "Asia/Shanghai", dateStyle: "medium", timeStyle: "medium",
});

export const texts = JSON.parse(document.getElementById("texts").textContent);

export function say(text, fields) {
  return text.replace(/\{(\w+)\}/g, (_, name) => fields[name]);
}

export const count = (n) => whole.format(n);

export function size(bytes) {
  for (const [unit, one] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (bytes >= one) return `${part.format(bytes / one)} ${unit}`;
  }
  return `${whole.format(bytes)} B`;
}

export const time = (us) => moment.format(new Date(us / 1000));

// How long ago, `seconds` being what the hub's clock says.
export function ago(seconds) {
  if (seconds < 5) return texts.now;
  if (seconds < 60) return say(texts.seconds, { n: Math.floor(seconds) });
  if (seconds < 3600) return say(texts.minutes, { n: Math.floor(seconds / 60) });
  if (seconds < 86400) return say(texts.hours, { n: Math.floor(seconds / 3600) });
  return say(texts.days, { n: Math.floor(seconds / 86400) });
}

export function age(seconds) {
  const n = Math.max(0, Math.floor(seconds));
  if (n < 60) return say(texts["age-seconds"], { n });
  if (n < 3600) return say(texts["age-minutes"], { n: Math.floor(n / 60), s: n % 60 });
  if (n < 86400) {
    return say(texts["age-hours"], { n: Math.floor(n / 3600), m: Math.floor((n % 3600) / 60) });
  }
  return say(texts["age-days"], { n: Math.floor(n / 86400) });
}

export function value(raw, field) {
  if (raw === null || raw === undefined) return "–";
  if (raw === true) return texts.yes;
  if (raw === false) return texts.no;
  if (field && field.type === "time") return time(raw);
  const shown = typeof raw === "number" ? part.format(raw) : String(raw);
  // A pack prints its units as they are said in China: "个" tells an English reader nothing.
  const unit = field && (language.startsWith("zh") || !/[\u3400-\u9fff]/.test(field.unit)) ? field.unit : "";
  return unit ? `${shown} ${unit}` : shown;
}
