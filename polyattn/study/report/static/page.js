"use strict";
// The page's own script: sliders that compute costs from the formulas in the page, exactly, and draw them.
// Whole numbers are BigInt throughout, so that nothing above 2^53 is rounded; only the drawing uses floating point.
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const MOST_DIGITS = 15;
  const LADDER = [];
  for (let k = 0n; k <= 24n; k++) {
    LADDER.push(1n << k);
    if (k > 0n) LADDER.push(3n << (k - 1n));
  }

  const studies = [];
  const state = { sizes: new Map(), start: new Map(), controls: [], tied: true };

  const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  const lesser = (a, b) => (b < a ? b : a);

  function group(number) {
    return String(number).replace(/\B(?=(\d{3})+(?!\d))/g, ",");
  }

  function short(number) {
    const units = ["", "k", "M", "G", "T", "P", "E"];
    let k = 0;
    while (number >= 1000 && k < units.length - 1) { number /= 1000; k++; }
    return k === units.length - 1 && number >= 1000 ? number.toExponential(0) : `${+number.toPrecision(3)}${units[k] && " " + units[k]}`;
  }

  // The value of a sum of [coefficient, {size: power}] at sizes.
  function evaluate(terms, sizes) {
    let total = 0n;
    for (const [coefficient, powers] of terms) {
      let product = BigInt(coefficient);
      for (const [size, power] of Object.entries(powers)) product *= sizes.get(size) ** BigInt(power);
      total += product;
    }
    return total;
  }

  // All sizes of a study from its free ones; a text that says what does not divide what, if so.
  function follow(study, free) {
    const sizes = new Map(free);
    const value = (names) => names.reduce((p, n) => p * (/^\d+$/.test(n) ? BigInt(n) : sizes.get(n)), 1n);
    for (const [size, above, below] of study.derived) {
      const top = value(above), bottom = value(below);
      if (top % bottom) return `${size} = ${above.join("·")}/${below.join("·")} is not whole: ${group(bottom)} does not divide ${group(top)}`;
      sizes.set(size, top / bottom);
    }
    return sizes;
  }

  function freeSizes(study) {
    return new Map(study.free.map((name) => [name, state.sizes.get(name)]));
  }

  function ratio(number, least) {
    if (least === 0n) return number === 0n ? 1 : Infinity;
    return Number((number * 1000000n) / least) / 1000000;
  }

  function element(name, attributes = {}, text = "") {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text) made.textContent = text;
    return made;
  }

  function drawn(parent, name, attributes, text = "") {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text) made.textContent = text;
    parent.append(made);
    return made;
  }

  // A slider on a ladder of sizes, with a field for any whole number. All sliders of one size move together.
  let count = 0;
  function control(parent, name) {
    const row = element("div", { class: "control" });
    const id = `size-${count++}`;
    const steps = [...new Set([...LADDER, state.start.get(name)])].sort(order);
    const slider = element("input", { type: "range", min: "0", max: String(steps.length - 1), step: "1", id, "data-size": name });
    const field = element("input", { type: "text", inputmode: "numeric", autocomplete: "off", "aria-label": `${name}, as a number`, "data-size-field": name });
    row.append(element("label", { for: id }, name), slider, field);
    parent.append(row);
    const show = () => {
      const value = state.sizes.get(name);
      const above = steps.findIndex((s) => s >= value);
      slider.value = String(above < 0 ? steps.length - 1 : above);
      slider.setAttribute("aria-valuetext", group(value));
      if (document.activeElement !== field) field.value = group(value);
    };
    slider.addEventListener("input", () => set(name, steps[Number(slider.value)]));
    field.addEventListener("input", () => {
      const text = field.value.replace(/[,\s]/g, "");
      const good = /^\d+$/.test(text) && text.length <= MOST_DIGITS && BigInt(text) > 0n;
      field.setAttribute("aria-invalid", String(!good));
      if (good) set(name, BigInt(text));
    });
    field.addEventListener("blur", () => { field.removeAttribute("aria-invalid"); show(); });
    const entry = { show, name, parent };
    state.controls.push(entry);
    show();
  }

  // Whether layers over N positions and over maps of H x W stand side by side, and H and W are nothing else.
  function tieable() {
    const over = (...names) => studies.some((s) => s.positions.join() === names.join());
    const sides = (s) => s.positions.join() === "H,W" || !(s.free.includes("H") || s.free.includes("W"));
    return over("N") && over("H", "W") && studies.every(sides);
  }

  // The sides of the most square map of n positions.
  function sides(n) {
    let short = BigInt(Math.floor(Math.sqrt(Number(n))));
    for (let k = 0; short > 1n && n % short; k++) short = k < 100000 ? short - 1n : 1n;
    return short > 1n ? [short, n / short] : [1n, n];
  }

  // Keep N = H·W when one of them has changed.
  function tie(name) {
    if (!state.tied || !tieable()) return [];
    if (name === "N") [["H", 0], ["W", 1]].forEach(([n, k]) => state.sizes.set(n, sides(state.sizes.get("N"))[k]));
    else if (name === "H" || name === "W") state.sizes.set("N", state.sizes.get("H") * state.sizes.get("W"));
    else return [];
    return ["N", "H", "W"];
  }

  let waiting = 0;
  function set(name, value) {
    if (state.sizes.get(name) === value) return;
    state.sizes.set(name, value);
    const changed = [name, ...tie(name)];
    state.controls.filter((c) => changed.includes(c.name)).forEach((c) => c.show());
    if (!waiting) waiting = requestAnimationFrame(refresh);
    document.dispatchEvent(new CustomEvent("polyattn:sizes"));
  }

  function refresh() {
    waiting = 0;
    studies.forEach(update);
    overview();
  }

  function update(study) {
    const { root } = study;
    const sizes = follow(study, freeSizes(study));
    const orders = study.orders[study.objective];
    root.querySelectorAll("[data-orders]").forEach((t) => { t.hidden = t.dataset.orders !== study.objective; });
    const rows = [...root.querySelectorAll(`[data-orders="${study.objective}"] tbody tr`)];
    const status = root.querySelector("[data-status]");
    if (typeof sizes === "string") {
      status.textContent = sizes;
      rows.forEach((row) => { row.className = ""; row.querySelector("[data-macs]").textContent = "—"; row.querySelector("[data-ratio]").textContent = ""; });
      study.result = null;
    } else {
      const macs = orders.map((o) => evaluate(o.terms, sizes));
      const least = macs.reduce(lesser);
      const best = macs.indexOf(least);
      study.result = { least, label: orders[best].label, best };
      rows.forEach((row, k) => {
        row.className = macs[k] === least ? "best" : "";
        row.querySelector("[data-macs]").textContent = group(macs[k]);
        row.querySelector("[data-ratio]").textContent = least ? `${ratio(macs[k], least).toFixed(2)} ×` : "";
      });
      const at = study.free.map((n) => `${n} = ${group(sizes.get(n))}`).join(", ");
      status.textContent = `At ${at}${study.derived.map(([n]) => `, ${n} = ${group(sizes.get(n))}`).join("")}: ${orders[best].label} takes the fewest, ${group(least)} MACs.`;
    }
    chart(study);
  }

  function samples(study) {
    const here = state.sizes.get(study.axis), start = state.start.get(study.axis);
    const low = [here, start / 64n || 1n].reduce(lesser), high = [here, start * 64n].reduce((a, b) => (a > b ? a : b));
    const points = new Set([...LADDER, here].filter((x) => x >= low && x <= high));
    const found = [];
    for (const x of [...points].sort(order)) {
      const sizes = follow(study, freeSizes(study).set(study.axis, x));
      if (typeof sizes !== "string") found.push([x, study.orders[study.objective].map((o) => evaluate(o.terms, sizes))]);
    }
    return found;
  }

  const log = (n) => { const t = String(n); return t.length > 15 ? t.length - 15 + Math.log10(Number(t.slice(0, 15))) : Math.log10(Math.max(1, Number(n))); };

  function chart(study) {
    const box = study.root.querySelector("[data-chart]");
    const points = samples(study);
    const orders = study.orders[study.objective];
    numbers(study, points, orders);
    box.replaceChildren();
    const width = Math.max(260, box.clientWidth || 640);
    if (points.length < 2) {
      box.append(element("p", { class: "note" }, `No sizes ${study.axis} around here go with the others.`));
      return;
    }
    const height = Math.min(380, Math.max(240, width * 0.5));
    const left = 62, right = 14, top = 14, bottom = 44;
    const xs = points.map((p) => log(p[0]));
    const ys = points.flatMap((p) => p[1].map(log));
    const [x0, x1] = [xs[0], xs[xs.length - 1]];
    let [y0, y1] = [Math.floor(Math.min(...ys)), Math.ceil(Math.max(...ys))];
    if (y0 === y1) y1 += 1;
    const X = (x) => left + ((x - x0) / (x1 - x0)) * (width - left - right);
    const Y = (y) => height - bottom - ((y - y0) / (y1 - y0)) * (height - top - bottom);
    const result = study.result;
    const words = result ? `${result.label} takes the fewest at ${study.axis} = ${group(state.sizes.get(study.axis))}` : "";
    const svg = drawn(box, "svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `MACs of ${study.name} against ${study.axis}, one line for each order; ${words}` });
    const step = Math.max(1, Math.ceil((y1 - y0) / 6));
    for (let y = y0; y <= y1; y += step) {
      drawn(svg, "line", { class: "grid", x1: left, x2: width - right, y1: Y(y), y2: Y(y) });
      drawn(svg, "text", { class: "tick", x: left - 8, y: Y(y) + 4, "text-anchor": "end" }, short(10 ** y));
    }
    const powers = points.filter((p) => (p[0] & (p[0] - 1n)) === 0n).map((p) => p[0]);
    const every = Math.max(1, Math.ceil(powers.length / ((width - left) / 64)));
    powers.forEach((x, k) => {
      if (k % every) return;
      drawn(svg, "line", { class: "grid", x1: X(log(x)), x2: X(log(x)), y1: top, y2: height - bottom });
      drawn(svg, "text", { class: "tick", x: X(log(x)), y: height - bottom + 18, "text-anchor": "middle" }, x < 100000n ? group(x) : short(Number(x)));
    });
    drawn(svg, "text", { class: "tick", x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, study.axis);
    drawn(svg, "text", { class: "tick", x: 14, y: (top + height - bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 14 ${(top + height - bottom) / 2})` }, "MACs");
    const here = X(log(state.sizes.get(study.axis)));
    drawn(svg, "line", { class: "here", x1: here, x2: here, y1: top, y2: height - bottom });
    orders.forEach((o, k) => {
      const path = points.map((p, i) => `${i ? "L" : "M"}${X(xs[i]).toFixed(1)} ${Y(log(p[1][k])).toFixed(1)}`).join("");
      drawn(svg, "path", { class: `curve s${k} ${result && result.best === k ? "best" : ""}`, d: path });
    });
    if (result) drawn(svg, "circle", { class: `dot f${result.best}`, cx: here, cy: Y(log(result.least)), r: 5 });
  }

  function numbers(study, points, orders) {
    const table = element("table");
    const head = table.createTHead().insertRow();
    [study.axis, ...orders.map((o) => o.label)].forEach((t) => head.append(element("th", { scope: "col", class: "number" }, t)));
    const body = table.createTBody();
    for (const [x, macs] of points) {
      const row = body.insertRow();
      [x, ...macs].forEach((n) => row.append(element("td", { class: "number" }, group(n))));
    }
    study.root.querySelector("[data-numbers]").replaceChildren(table);
  }

  function overview() {
    const table = document.querySelector("[data-overview]");
    if (!table) return;
    const known = studies.filter((s) => s.result).sort((a, b) => order(a.result.least, b.result.least));
    const numbers = known.map((s) => s.result.least);
    const places = new Set(known.map((s) => s.positions.reduce((p, n) => p * (state.sizes.get(n) ?? 1n), 1n)));
    const alike = places.size < 2;
    const note = document.querySelector("[data-positions]");
    note.textContent = alike ? "" : `Not compared: the layers are at different numbers of positions, ${[...places].sort(order).map(group).join(" and ")}.`;
    table.tBodies[0].replaceChildren(...known.map((s) => {
      const { least, label } = s.result;
      const row = named(s);
      const share = element("td", { class: "share" });
      const bar = element("span", { class: "bar" });
      bar.style.width = `${100 / ratio(numbers[numbers.length - 1], least)}%`;
      if (alike) share.append(bar);
      const times = alike ? `${ratio(least, numbers[0]).toFixed(2)} ×` : "";
      row.append(element("td", {}, label), element("td", { class: "number" }, group(least)), element("td", { class: "number" }, times), share);
      return row;
    }), ...studies.filter((s) => !s.result).map((s) => {
      const row = named(s);
      row.append(element("td", { colspan: "4" }, "not at these sizes"));
      return row;
    }));
  }

  function named(study) {
    const row = element("tr", { "data-layer": study.name });
    const name = element("th", { scope: "row" });
    name.append(element("a", { href: `#${study.root.closest("section").id}` }, study.name));
    row.append(name);
    return row;
  }

  // Takes the studies under an element into the page; those of elements that are gone are dropped.
  function mount(under) {
    for (let k = studies.length - 1; k >= 0; k--) if (!studies[k].root.isConnected) studies.splice(k, 1);
    state.controls = state.controls.filter((c) => c.parent.isConnected);
    under.querySelectorAll("[data-study]").forEach((root) => {
      const study = { ...JSON.parse(root.querySelector("script").textContent), root, objective: "forward" };
      for (const [name, number] of Object.entries(study.sizes)) {
        if (!state.start.has(name)) state.start.set(name, BigInt(number));
        if (!state.sizes.has(name)) state.sizes.set(name, BigInt(number));
      }
      study.axis = study.free.find((n) => n !== "B") ?? "B";
      study.free.forEach((name) => control(root.querySelector("[data-controls]"), name));
      const axis = root.querySelector("[data-axis]");
      study.free.forEach((name) => axis.append(element("option", { value: name }, name)));
      axis.value = study.axis;
      axis.addEventListener("change", () => { study.axis = axis.value; chart(study); });
      root.querySelectorAll("input[type=radio]").forEach((radio) => radio.addEventListener("change", () => { study.objective = radio.value; refresh(); }));
      root.querySelectorAll("[data-orders]").forEach((table) => table.querySelectorAll("[data-swatch]").forEach((cell, k) => {
        const svg = drawn(cell, "svg", { width: 34, height: 10, "aria-hidden": "true" });
        drawn(svg, "line", { class: `curve s${k}`, x1: 0, x2: 34, y1: 5, y2: 5 });
      }));
      studies.push(study);
    });
    const shared = document.querySelector("#overview [data-controls]");
    if (shared) {
      const names = new Set(studies.flatMap((s) => s.free));
      ["B", "N", "H", "W", "C"].filter((n) => names.has(n)).forEach((name) => control(shared, name));
      if (tieable()) {
        const label = element("label", { class: "tie" }), box = element("input", { type: "checkbox", "data-tied": "" });
        box.checked = true;
        label.append(box, " N = H·W");
        shared.append(label);
        box.addEventListener("change", () => {
          state.tied = box.checked;
          if (state.tied) tie("H").forEach((n) => state.controls.filter((c) => c.name === n).forEach((c) => c.show()));
          refresh();
        });
      }
    }
    refresh();
  }

  let width = 0;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;
    width = window.innerWidth;
    studies.forEach(chart);
  });
  mount(document);
  // Sizes from elsewhere, before or after there are sliders for them.
  const given = (sizes) => {
    for (const [name, number] of Object.entries(sizes)) state.sizes.set(name, BigInt(number));
    state.controls.forEach((c) => c.show());
  };
  window.polyattn = { mount, set: given, sizes: () => Object.fromEntries([...state.sizes].map(([k, v]) => [k, String(v)])) };
})();
