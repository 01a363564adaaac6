// The proof that an entry's page shows, checked from what the page shows: no second source.
import { Unable, fromHex, verifyReceipt } from "./verify.js";

const section = document.getElementById("ledger");
const verdict = document.getElementById("verdict");
const shown = (id) => document.getElementById(id).textContent;

function tell(text, kind) {
  verdict.textContent = text;
  verdict.className = `verdict ${kind}`;
}

tell(section.dataset.checking, "");
try {
  await verifyReceipt({
    leaf: fromHex(shown("proof-leaf")),
    index: shown("proof-index"),
    path: [...document.querySelectorAll("#proof-path code")].map((one) => fromHex(one.textContent)),
    checkpoint: shown("proof-checkpoint"),
    key: shown("proof-key"),
    names: [fromHex(shown("proof-object"))],
  });
  tell(section.dataset.right, "good");
} catch (error) {
  if (error instanceof Unable) {
    tell(section.dataset.unable.replace("{why}", error.message), "");
  } else {
    const why = section.querySelector(`[data-why="${error.why}"]`)?.textContent ?? error.message;
    tell(section.dataset.wrong.replace("{why}", why), "bad");
  }
}
