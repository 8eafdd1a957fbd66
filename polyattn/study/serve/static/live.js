"use strict";
// The live page: asks the server as the text changes, and drops what is no longer wanted.
(() => {
  const AFTER = 250; // milliseconds after the last key
  const AT_ONCE = 2; // proofs
  const byId = (id) => document.getElementById(id);
  const text = byId("text"), problem = byId("problem"), squiggle = byId("squiggle"), result = byId("result");
  const verdicts = byId("verdicts"), status = byId("state");
  const examples = JSON.parse(byId("examples").textContent);
  let running = new AbortController(), timer = 0, place = null;
  let kept = {}; // the sizes to plan at: those of the sliders when a plan at them was asked for

  // The page's address holds the text and the sizes, so that it can be sent to others.
  function remember() {
    const query = new URLSearchParams({ text: text.value });
    const sizes = Object.entries(kept).map(([name, number]) => `${name}=${number}`).join(",");
    if (sizes) query.set("sizes", sizes);
    history.replaceState(null, "", `${location.pathname}?${query}${location.hash}`);
  }

  function recall() {
    const query = new URLSearchParams(location.search), given = query.get("text");
    if (given === null || given.length > text.maxLength) return;
    text.value = given;
    const pairs = (query.get("sizes") ?? "").split(",").map((pair) => pair.split("="));
    kept = Object.fromEntries(pairs.filter(([name, number]) => /^[A-Z]\w*$/.test(name) && /^\d{1,15}$/.test(number ?? "")));
    window.polyattn.set(kept);
  }

  // What is shown belongs to another text until the answer for this one is there.
  const stale = (parts, yes) => parts.forEach((part) => part.setAttribute("aria-busy", String(yes)));

  async function ask(job, request, signal) {
    const answer = await fetch(`/${job}`, { method: "POST", signal, headers: { "Content-Type": "application/json" }, body: JSON.stringify(request) });
    const data = await answer.json();
    if (data.bad) throw new Error(data.bad);
    return data;
  }

  function mark() {
    squiggle.hidden = !place;
    if (!place) return;
    const style = getComputedStyle(text);
    squiggle.style.left = `calc(${style.paddingLeft} + ${style.borderLeftWidth} + ${place.column - 1}ch - ${text.scrollLeft}px)`;
    squiggle.style.top = `calc(${style.paddingTop} + ${style.borderTopWidth} + ${place.line - 1} * 1.5em - ${text.scrollTop}px)`;
  }

  function complain(error) {
    place = error && error.line ? error : null;
    problem.hidden = !error;
    text.setAttribute("aria-invalid", String(Boolean(error)));
    problem.firstElementChild.textContent = error ? (place ? `Line ${error.line}, column ${error.column}: ` : "") + error.reason : "";
    const line = place ? text.value.split("\n")[error.line - 1] ?? "" : "";
    problem.lastElementChild.textContent = place ? `${line}\n${" ".repeat(Math.max(0, error.column - 1))}^` : "";
    problem.lastElementChild.hidden = !place;
    mark();
  }

  function put(parent, html) {
    const template = document.createElement("template");
    template.innerHTML = html;
    parent.replaceChildren(template.content);
  }

  async function prove(value, signal) {
    const names = Object.keys(examples);
    const places = names.map(() => document.createElement("div"));
    verdicts.replaceChildren(...places);
    let next = 0;
    const one = async () => {
      while (next < names.length) {
        const k = next++;
        const answer = await ask("proof", { text: value, against: names[k] }, signal);
        if (answer.html) put(places[k], answer.html);
        else places[k].textContent = `${names[k]}: ${answer.error.reason}`;
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, one));
  }

  async function refresh() {
    clearTimeout(timer);
    stale([result, verdicts], true);
    running.abort();
    running = new AbortController();
    const { signal } = running;
    const value = text.value;
    status.textContent = "…";
    try {
      const checked = await ask("check", { text: value }, signal);
      complain(checked.error);
      if (checked.error) { status.textContent = ""; return; }
      let layer = await ask("layer", { text: value, sizes: kept }, signal);
      if (layer.error && Object.keys(kept).length) {
        kept = {}; // sizes of another text, which do not go with this one
        layer = await ask("layer", { text: value, sizes: kept }, signal);
      }
      complain(layer.error);
      if (layer.error) { status.textContent = ""; return; }
      put(result, layer.html);
      window.polyattn.mount(result);
      stale([result], false);
      remember();
      const proved = prove(value, signal);
      stale([verdicts], false); // its places are new
      await proved;
      status.textContent = "Up to date.";
    } catch (error) {
      if (signal.aborted) return;
      status.textContent = error.message || "The server does not answer.";
    }
  }

  text.addEventListener("input", () => {
    clearTimeout(timer);
    stale([result, verdicts], true);
    timer = setTimeout(refresh, AFTER);
  });
  text.addEventListener("scroll", mark);
  byId("again").addEventListener("click", () => { kept = window.polyattn.sizes(); refresh(); });
  byId("example").addEventListener("change", (event) => {
    if (!examples[event.target.value]) return;
    text.value = examples[event.target.value];
    refresh();
  });
  recall();
  refresh();
})();
