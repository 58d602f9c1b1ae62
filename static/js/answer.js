// An answer as it is written: plain text while it comes, the store's safe HTML when it has ended, and its numbers.
import { follow } from "./stream.js";

const WAITING_AFTER_MS = 3000;
const frame = (name) => document.querySelector(`template[data-frame="${name}"]`);
export const words = () => frame("words").dataset;
const count = (n) => new Intl.NumberFormat(document.documentElement.lang).format(n);

// Gives each code block its frame with a button that copies it.
export function dress(root) {
  for (const pre of root.querySelectorAll("pre")) {
    if (pre.closest(".code")) continue;
    const block = frame("code").content.firstElementChild.cloneNode(true);
    const language = pre.querySelector("code")?.className.match(/language-(\S+)/)?.[1] ?? "";
    block.querySelector(".title").textContent = language;
    block.querySelector("button").dataset.copy = pre.textContent;
    pre.tabIndex = 0;
    pre.replaceWith(block);
    block.append(pre);
  }
}

// Says in place what went wrong, with the store's way out; null clears it.
export function trouble(place, error) {
  if (!error) return place.replaceChildren();
  const notice = frame("trouble").content.firstElementChild.cloneNode(true);
  notice.querySelector("span").textContent = error.message;
  if (error.way_out) {
    const link = notice.querySelector("a");
    Object.assign(link, { href: error.way_out.url, textContent: error.way_out.label, hidden: false });
  }
  place.replaceChildren(notice);
}

// What was written stays in this tab while somebody leaves the page to sign up or in.
const DRAFT = `draft:${location.pathname}${location.search}`;
const drafts = () => {
  try {
    return sessionStorage;
  } catch {
    return null; // it is refused where cookies are
  }
};
export const keepDraft = (text) => drafts()?.setItem(DRAFT, text);
export function takeDraft(textarea) {
  const text = drafts()?.getItem(DRAFT) ?? null;
  if (text === null) return;
  drafts().removeItem(DRAFT);
  textarea.value = text;
}

// What these tokens cost at the prices of a million, written as the store writes money; the store's own number follows at the end.
function costOf({ prompt_tokens, input_price_micro = 0, output_price_micro = 0 }, tokens) {
  if (!input_price_micro && !output_price_micro) return null;
  const micro = Math.ceil((prompt_tokens * input_price_micro + tokens * output_price_micro) / 1e6);
  const style = { style: "currency", currency: "USD", minimumFractionDigits: 2, maximumFractionDigits: 6 };
  return new Intl.NumberFormat(document.documentElement.lang, style).format(micro / 1e6);
}

function live(numbers, tokens, since, started) {
  const said = words();
  const elapsed = (performance.now() - since) / 1000;
  const parts = [(tokens === 1 ? said.token : said.tokens).replace("{n}", count(tokens))];
  if (tokens > 1 && elapsed > 0.2) parts.push(said.rate.replace("{n}", count(Math.round((tokens - 1) / elapsed))));
  const cost = started && costOf(started, tokens);
  if (cost) parts.push(cost);
  numbers.replaceChildren(
    ...parts.map((text) => Object.assign(document.createElement("span"), { textContent: text })),
  );
}

// Shows the stream of `url` in `body` and `numbers`; resolves to its finished event, null when it can't be read any more.
export function show(url, { body, numbers }) {
  return new Promise((resolve) => {
    const text = Object.assign(document.createElement("p"), { className: "streaming" });
    let since = null;
    let asked = null; // the event it started with
    body.replaceChildren(text);
    body.setAttribute("aria-busy", "true");
    const waiting = setTimeout(() => {
      const note = Object.assign(document.createElement("p"), { className: "note", textContent: words().waiting });
      if (!text.textContent) body.prepend(note);
    }, WAITING_AFTER_MS);
    const begin = () => {
      clearTimeout(waiting);
      body.replaceChildren(text);
    };
    const end = (event) => {
      clearTimeout(waiting);
      body.removeAttribute("aria-busy");
      resolve(event);
    };
    follow(url, {
      started(event) {
        begin();
        asked = event;
        text.textContent = ""; // a further attempt begins anew
        since = null;
      },
      delta(event) {
        if (since === null) {
          since = performance.now();
          begin();
        }
        text.textContent += event.text;
        live(numbers, event.tokens, since, asked);
      },
      finished(event) {
        // The store renders Markdown without raw HTML and cleans it by an allow-list.
        body.innerHTML = event.html;
        numbers.innerHTML = event.meter;
        dress(body);
        end(event);
      },
      lost() {
        const note = Object.assign(document.createElement("p"), { className: "note", textContent: words().lost });
        text.className = "";
        body.append(note);
        end(null);
      },
    });
  });
}

// Enter sends, Shift+Enter begins a new line; while a Chinese word is being composed Enter belongs to the input method.
export function sendOnEnter(textarea) {
  textarea.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    textarea.form.requestSubmit();
  });
}
