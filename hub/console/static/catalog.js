// The proof that an entry's page shows, checked from what the page shows: no second source.
import { Failed, verify } from "./receipt.js";

const section = document.getElementById("ledger");
const verdict = document.getElementById("verdict");
const shown = (id) => document.getElementById(id).textContent;

function tell(text, kind) {
  verdict.textContent = text;
  verdict.className = `verdict ${kind}`;
}

async function check() {
  if (!globalThis.crypto?.subtle) return tell(section.dataset.unable, "");
  tell(section.dataset.checking, "");
  try {
    const receipt = {
      segment: shown("proof-object"), // the id that the leaf must name
      leaf: shown("proof-leaf"),
      index: Number(shown("proof-index")),
      path: [...document.querySelectorAll("#proof-path code")].map((one) => one.textContent),
      checkpoint: shown("proof-checkpoint"),
      vkey: shown("proof-key"),
    };
    const { signed } = await verify(receipt, () => {});
    tell(signed ? section.dataset.right : section.dataset.unable, signed ? "good" : "");
  } catch (error) {
    if (!(error instanceof Failed)) throw error;
    const why = section.querySelector(`[data-why="${error.message}"]`).textContent;
    tell(section.dataset.wrong.replace("{why}", why), "bad");
  }
}

await check();
