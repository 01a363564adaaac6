// The live page. The server sends everything first and then what moves; this fills it into the
// places that the page marks, asks for short segments of what is on the screen, and says what changed.

import { Chart } from "./chart.js";
import { age, ago, count, say, size, texts, time, value } from "./format.js";
import { Failed, generationOf, verify } from "./receipt.js";

const page = document.getElementById("live");
const tab = Array.from(crypto.getRandomValues(new Uint8Array(16)), (one) => one.toString(16).padStart(2, "0")).join("");
const VIEW_MAX = 20;
const RENEW_MS = 10_000;
const SILENCE_MS = 25_000;
const POINTS_MAX = 240;

const state = { gateways: {}, resources: {}, ledger: {} };
const sizes = new Map(); // generation of the ledger → the most leaves that this page saw
const views = new Map(); // resource n → { fields, points, chart, row }
let offsetUs = 0; // hub time − this clock
let source = null;
let lastHeard = 0;
const seen = new Set(); // rows on the screen

const hubNow = () => Date.now() * 1000 + offsetUs;
const put = (place, text) => { if (place && place.textContent !== text) place.textContent = text; };

// --- the stream -----------------------------------------------------------------------------------
function connect() {
  if (source) source.close();
  source = new EventSource(`${page.dataset.stream}?tab=${tab}`);
  lastHeard = Date.now();
  const on = (name, act) => source.addEventListener(name, (event) => {
    lastHeard = Date.now();
    act(JSON.parse(event.data));
  });
  on("state", (all) => {
    link("good", texts.connected);
    clock(all.t);
    Object.assign(state, { gateways: all.gateways, resources: all.resources, ledger: all.ledger });
    show(Object.keys(all.gateways), Object.keys(all.resources));
    if (isOther(all)) rebuild();
    views.clear();
    renew();
  });
  on("delta", (some) => {
    clock(some.t);
    announce(some.gateways || {});
    Object.assign(state.gateways, some.gateways);
    Object.assign(state.resources, some.resources);
    if (some.ledger) state.ledger = some.ledger;
    show(Object.keys(some.gateways || {}), Object.keys(some.resources || {}));
  });
  on("values", (some) => Object.entries(some).forEach(([n, one]) => take(n, one)));
  on("shape", rebuild);
  on("bye", () => location.reload());
  source.onerror = () => {
    if (document.visibilityState === "visible") link("wait", texts.reconnecting);
    if (source.readyState === EventSource.CLOSED) setTimeout(look, 2000);
  };
}

// A stream that was refused: the session may be over, or the hub is about to come back.
async function look() {
  try {
    const answer = await fetch(`${page.dataset.stream}?tab=probe`);
    if (answer.status === 401) location.reload();
  } catch { /* not back yet */ }
  if (source.readyState === EventSource.CLOSED) connect();
}

function clock(us) {
  const now = us - Date.now() * 1000;
  offsetUs = offsetUs === 0 ? now : Math.max(now, offsetUs - 200_000);
}

function link(kind, text) {
  const pill = document.getElementById("link");
  pill.className = `pill ${kind}`;
  put(pill, text);
}

// --- what stands on the page ----------------------------------------------------------------------
// Found once: looking for each row anew would be quadratic in their number.
const gateways = new Map();
const rows = new Map();
const gatewayOf = (id) => gateways.get(id);
const rowOf = (n) => rows.get(n);
const cell = (place, name) => place.querySelector(`[data-f="${name}"]`);

function find() {
  gateways.clear();
  rows.clear();
  page.querySelectorAll("[data-gateway]").forEach((one) => gateways.set(one.dataset.gateway, one));
  page.querySelectorAll("[data-resource]").forEach((one) => rows.set(one.dataset.resource, one));
}

const isOther = (all) => Object.keys(all.gateways).some((id) => !gatewayOf(id)) ||
  Object.keys(all.resources).some((n) => !rowOf(n));

// Sites, gateways or resources came or went: take the list from the server, keep the rest.
async function rebuild() {
  const answer = await fetch(location.href);
  if (!answer.ok || answer.redirected) return location.reload();
  const other = new DOMParser().parseFromString(await answer.text(), "text/html");
  document.getElementById("sites").replaceWith(document.adoptNode(other.getElementById("sites")));
  views.forEach((one) => { one.chart = null; });
  find();
  show(Object.keys(state.gateways), Object.keys(state.resources));
  watchRows();
}

function grown(generation, leaves) {
  sizes.set(generation, Math.max(leaves, sizes.get(generation) || 0));
}

function show(ids, numbers) {
  if (state.ledger.generation) grown(state.ledger.generation, state.ledger.size);
  ids.forEach(showGateway);
  numbers.forEach(showResource);
  let [online, away, records] = [0, 0, 0];
  Object.values(state.gateways).forEach((one) => {
    online += one.state === "online";
    away += one.state === "away";
    records += one.accepted;
  });
  put(page.querySelector('[data-sum="online"]'), count(online));
  put(page.querySelector('[data-sum="away"]'), count(away));
  put(page.querySelector('[data-sum="records"]'), count(records));
  put(page.querySelector('[data-sum="leaves"]'), count(state.ledger.size || 0));
  put(page.querySelector('[data-ledger="generation"]'), String(state.ledger.generation || "–"));
  put(page.querySelector('[data-ledger="size"]'), count(state.ledger.size || 0));
  put(page.querySelector('[data-ledger="root"]'), state.ledger.root || "–");
}

function showGateway(id) {
  const [place, one] = [gatewayOf(id), state.gateways[id]];
  if (!place) return;
  const pill = cell(place, "state");
  pill.className = `pill ${one.state}`;
  put(pill, texts[`state-${one.state}`]);
  const report = one.report;
  const waits = [];
  if (report && report.segments) waits.push(say(texts.segments, { n: count(report.segments) }));
  if (report && report.records) waits.push(say(texts.records, { n: count(report.records) }));
  if (report && report.bytes) waits.push(size(report.bytes));
  put(cell(place, "pending"), report ? waits.join(" · ") || texts.none : texts.unreported);
  put(cell(place, "sending"), report && report.sending ? say(texts.segments, { n: count(report.sending) }) : texts.none);
  put(cell(place, "accepted"), count(one.accepted));
  showAges(id);
}

function showAges(id) {
  const [place, one] = [gatewayOf(id), state.gateways[id]];
  if (!place) return;
  const oldest = one.report && one.report.oldest;
  put(cell(place, "oldest"), !one.report ? texts.unreported : oldest ? age((hubNow() - oldest) / 1e6) : texts.none);
  put(cell(place, "newest"), one.newest ? ago((hubNow() - one.newest) / 1e6) : texts.never);
}

function showResource(n) {
  const [row, one] = [rowOf(n), state.resources[n]];
  if (!row) return;
  put(cell(row, "records"), count(one.records));
  put(cell(row, "bytes"), size(one.bytes));
  row.classList.toggle("moving", one.live);
  showAge(n);
}

function showAge(n) {
  const [row, one] = [rowOf(n), state.resources[n]];
  if (row) put(cell(row, "accepted"), one.accepted ? ago((hubNow() - one.accepted) / 1e6) : texts.never);
}

// Said to a screen reader, politely: only what a person would want to be told.
function announce(moved) {
  const said = Object.entries(moved)
    .filter(([id, one]) => state.gateways[id] && state.gateways[id].state !== one.state)
    .map(([id, one]) => say(texts.went, { name: nameOf(id), state: texts[`state-${one.state}`] }));
  if (said.length) put(document.getElementById("news"), said.join(" "));
}

const nameOf = (id) => { const place = gatewayOf(id); return place ? place.querySelector("h3").textContent : id; };

// --- values and charts ----------------------------------------------------------------------------
function take(n, news) {
  const one = views.get(n) || { fields: [], points: [], chart: null };
  if (news.fields) Object.assign(one, { fields: news.fields, points: [] });
  one.points = one.points.concat(news.points).slice(-POINTS_MAX);
  views.set(n, one);
  draw(n);
}

function draw(n) {
  const [one, row] = [views.get(n), rowOf(n)];
  if (!one || !row || !cell(row, "chart")) return;
  const last = one.points[one.points.length - 1];
  const field = one.fields.findIndex((each) => each.type === "int" || each.type === "float");
  if (!last) return;
  if (!one.chart) one.chart = new Chart(cell(row, "chart"));
  const latest = describe(last, one.fields);
  one.chart.draw(one.points, field, hubNow(), (inside) => say(texts.chart, { n: inside, value: latest }));
  const place = cell(row, "latest");
  place.classList.remove("soft");
  put(place, latest);
}

function describe([, device, values], fields) {
  const chinese = document.documentElement.lang.startsWith("zh");
  const shown = fields
    .map((field, at) => [chinese ? field.zh : field.en, value(values[at], field), values[at]])
    .filter(([, , raw]) => raw !== null)
    .slice(0, 3)
    .map(([name, text]) => `${name} ${text}`);
  return say(texts["latest-of"], { device, value: shown.join(chinese ? "，" : ", ") || "–" });
}

// --- the lease: what is on the screen, while the page is looked at --------------------------------
const watcher = new IntersectionObserver((entries) => {
  entries.forEach((one) => {
    const n = one.target.dataset.resource;
    one.isIntersecting ? seen.add(n) : seen.delete(n);
  });
  soon();
}, { rootMargin: "50px" });

function watchRows() {
  seen.clear();
  watcher.disconnect();
  rows.forEach((row) => watcher.observe(row));
}

let timer = 0;
function soon() {
  clearTimeout(timer);
  timer = setTimeout(renew, 150);
}

async function renew() {
  if (document.visibilityState !== "visible" || !source || source.readyState !== EventSource.OPEN || !seen.size) return;
  const wanted = Array.from(rows.keys()).filter((n) => seen.has(n)).slice(0, VIEW_MAX);
  try {
    const answer = await fetch(page.dataset.view, {
      method: "POST",
      headers: { "X-CSRF-Token": page.dataset.csrf },
      body: new URLSearchParams({ tab, resources: wanted.join(",") }),
    });
    if (answer.status === 401 || answer.status === 403) return location.reload();
    if (!answer.ok) return;
    const used = (await answer.json()).used_up.map(String);
    wanted.forEach((n) => {
      const row = rowOf(n);
      if (row) row.classList.toggle("used-up", used.includes(n));
      const note = row && row.querySelector(".note");
      if (note) note.remove();
      if (row && used.includes(n)) {
        const made = document.createElement("span");
        made.className = "note";
        made.textContent = texts["used-up"];
        row.querySelector(".values").append(made);
      }
    });
  } catch { /* the stream says that the hub is away */ }
}

document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") {
    link("wait", texts.reconnecting);
    connect();
  } else {
    source.close();
    link("wait", texts.hidden);
  }
});

// --- receipts -------------------------------------------------------------------------------------
page.addEventListener("click", (event) => {
  const button = event.target.closest("[data-verify]");
  if (button) check(button.dataset.verify);
});

async function check(n) {
  const place = document.getElementById("receipt");
  const steps = document.createElement("ul");
  steps.className = "steps";
  const verdict = line("p", "verdict wait", texts.verifying);
  const name = rowOf(n).querySelector(".name").textContent;
  const known = { resource: rowOf(n).dataset.id, sizes: new Map(sizes) }; // before the receipt is asked for
  place.replaceChildren(line("h3", "", name), verdict, steps);
  place.focus();
  place.scrollIntoView({ block: "nearest" });
  const conclude = (kind, text, more) => {
    verdict.className = `verdict ${kind}`;
    verdict.textContent = more ? `${text}${texts.colon}${more}` : text;
  };
  if (!globalThis.crypto || !crypto.subtle) return conclude("bad", texts.bad, texts.insecure);
  let receipt;
  try {
    const answer = await fetch(`/live/receipt?resource=${encodeURIComponent(n)}`, { cache: "no-store" });
    if (answer.status === 404) return conclude("wait", texts["no-segment"]);
    if (!answer.ok) return conclude("wait", texts.unreachable);
    receipt = await answer.json();
  } catch {
    return conclude("wait", texts.unreachable);
  }
  try {
    const told = (key, fields) => steps.append(line("li", "good", say(texts[`step-${key}`], fields)));
    const found = await verify(receipt, told, known);
    if (found.signed) grown(generationOf(found.note), found.note.size);
    conclude(found.signed ? "good" : "wait", found.signed ? texts.good : texts.unsupported);
    place.append(line("p", "", say(texts["leaf-line"], {
      index: count(receipt.index), size: count(found.note.size), time: time(found.said[4]), count: found.said[3].length,
    })));
    const key = line("p", "", texts["key-line"]);
    key.append(line("code", "", receipt.vkey));
    place.append(key, line("p", "hint", texts["key-hint"]));
  } catch (error) {
    const why = error instanceof Failed ? error.message : "shape";
    steps.append(line("li", "bad", texts[`failed-${why}`]));
    conclude("bad", texts.bad);
  }
}

function line(name, kind, text) {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  made.textContent = text;
  return made;
}

// --- go -------------------------------------------------------------------------------------------
setInterval(renew, RENEW_MS);
setInterval(() => {
  Object.keys(state.gateways).forEach(showAges);
  seen.forEach((n) => { if (state.resources[n]) showAge(n); if (views.has(n)) draw(n); });
  if (document.visibilityState === "visible" && Date.now() - lastHeard > SILENCE_MS) connect();
}, 1000);
find();
connect();
watchRows();
