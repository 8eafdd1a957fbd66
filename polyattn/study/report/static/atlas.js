(() => {
  "use strict";
  const picture = document.getElementById("picture");
  const whole = picture.getAttribute("viewBox").split(" ").map(Number);
  let view = [...whole];

  const show = () => picture.setAttribute("viewBox", view.map((n) => n.toFixed(1)).join(" "));
  const scale = () => Math.max(view[2] / picture.clientWidth, view[3] / picture.clientHeight);

  function zoom(factor, x = view[0] + view[2] / 2, y = view[1] + view[3] / 2) {
    const width = Math.min(whole[2] * 2, Math.max(120, view[2] * factor));
    const by = width / view[2];
    view = [x - (x - view[0]) * by, y - (y - view[1]) * by, width, view[3] * by];
    show();
  }

  function place(event) {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(picture.getScreenCTM().inverse());
    return [point.x, point.y];
  }

  function all() {
    view = [...whole];
    show();
  }

  // The picture opens at letters of eleven pixels, with its top and its middle.
  function start() {
    const width = Math.min(whole[2], picture.clientWidth * 1.15);
    view = [whole[0] + (whole[2] - width) / 2, whole[1], width, width * picture.clientHeight / picture.clientWidth];
    show();
  }

  picture.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.15 : 1 / 1.15, ...place(event));
  }, { passive: false });

  const fingers = new Map();
  let moved = 0;
  picture.addEventListener("pointerdown", (event) => { fingers.set(event.pointerId, event); moved = 0; });
  window.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const other = [...fingers.values()].find((f) => f.pointerId !== event.pointerId);
    if (other) {
      const apart = (a) => Math.hypot(a.clientX - other.clientX, a.clientY - other.clientY) || 1;
      zoom(apart(before) / apart(event), ...place(other));
    } else {
      view[0] -= (event.clientX - before.clientX) * scale();
      view[1] -= (event.clientY - before.clientY) * scale();
      show();
    }
    moved += Math.abs(event.clientX - before.clientX) + Math.abs(event.clientY - before.clientY);
    picture.classList.toggle("moving", moved > 4);
    fingers.set(event.pointerId, event);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    window.addEventListener(name, (event) => { fingers.delete(event.pointerId); picture.classList.remove("moving"); });
  }
  // A drag that ends on a name does not open it.
  picture.addEventListener("click", (event) => { if (moved > 4) event.preventDefault(); }, true);
  picture.addEventListener("dragstart", (event) => event.preventDefault());

  picture.addEventListener("keydown", (event) => {
    const step = view[2] / 10;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (moves[event.key]) {
      view[0] += moves[event.key][0];
      view[1] += moves[event.key][1];
      show();
    } else if (event.key === "+" || event.key === "=") zoom(1 / 1.25);
    else if (event.key === "-") zoom(1.25);
    else if (event.key === "0") start();
    else return;
    event.preventDefault();
  });
  document.querySelectorAll("[data-zoom]").forEach((button) => button.addEventListener("click", () => {
    if (button.dataset.zoom === "all") all();
    else zoom(button.dataset.zoom === "in" ? 1 / 1.4 : 1.4);
  }));

  const names = [...picture.querySelectorAll("[data-layer]")];
  const lines = [...picture.querySelectorAll(".line")];
  const search = document.getElementById("search");
  const found = document.querySelector("[data-found]");
  function filter() {
    const wanted = search.value.trim().toLowerCase();
    const hits = names.filter((a) => a.dataset.text.toLowerCase().includes(wanted));
    const have = new Set(hits.map((a) => a.dataset.layer));
    names.forEach((a) => a.classList.toggle("dim", !have.has(a.dataset.layer)));
    lines.forEach((l) => l.classList.toggle("dim", wanted !== "" && !have.has(l.dataset.from) && !have.has(l.dataset.to)));
    found.textContent = wanted ? `${hits.length} of ${names.length} layers` : "";
    return hits;
  }
  search.addEventListener("input", filter);
  search.addEventListener("keydown", (event) => {
    const hits = filter();
    const exact = hits.find((a) => a.dataset.layer === search.value.trim()) || hits[0];
    if (event.key === "Enter" && exact) location.hash = exact.getAttribute("href");
  });

  // Move the picture only if a name is outside of it.
  function reveal(box) {
    const inside = (k, low, size) => low >= view[k] && low + size <= view[k + 2];
    if (inside(0, box.x, box.width) && inside(1, box.y, box.height)) return;
    view[0] = box.x + (box.width - view[2]) / 2;
    view[1] = box.y + (box.height - view[3]) / 2;
    show();
  }

  const details = [...document.querySelectorAll(".detail")];
  function select(focus) {
    const id = decodeURIComponent(location.hash.slice(1));
    const chosen = details.find((d) => d.id === id);
    details.forEach((d) => { d.hidden = d !== chosen; });
    picture.querySelectorAll("a").forEach((a) => {
      if (chosen && a.getAttribute("href") === `#${id}`) a.setAttribute("aria-current", "true");
      else a.removeAttribute("aria-current");
    });
    const name = chosen && names.find((a) => a.getAttribute("href") === `#${id}`);
    if (name) reveal(name.getBBox());
    if (chosen && focus) { chosen.focus({ preventScroll: true }); chosen.scrollIntoView({ block: "nearest" }); }
  }
  window.addEventListener("hashchange", () => select(true));
  start();
  select(false);
})();
