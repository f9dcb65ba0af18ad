// Draws what report/explorer.py computed: every model's blocks, and maps of blocks by tokens.
// d3 and Plot are in the page before this file.  Text reaches the page as text nodes only.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("page-data").textContent);
  const find = (selector) => document.querySelector(selector);
  const dark = matchMedia("screen and (prefers-color-scheme: dark)");
  const PARTS = [["attention", "#e69f00", "#e69f00"], ["mlp", "#5b3f8c", "#a98de0"]];
  const themed = (light, night) => (dark.matches ? night : light);
  const LOG_GAINS = ["log_gain", "attention", "mlp"];
  const CLASSES = { b: "bos", m: "massive", o: "ordinary" };
  const metrics = Object.fromEntries(data.choices.part.map((metric) => [metric.name, metric]));
  const lists = [data.choices.class, data.choices.reduction, data.choices.split];
  const names = Object.fromEntries([
    ...lists.flat(), ...data.choices.part.map(({ name, label }) => [name, label]),
  ]);
  const state = {
    ...data.rule, curve_class: data.rule.class, curve_split: data.rule.split, first: "0",
    model: data.models[0].key, prompt: data.models[0].maps[0].prompt, part: "log_gain",
    layer: null, position: null,
  };
  const INK = "currentColor";
  const look = { color: "var(--ink)", background: "transparent", fontSize: "12px", overflow: "visible" };

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }
  const titled = (model) => model.role === "model" ? model.key : `${model.key} (${model.role})`;
  const signed = (value) =>
    value === null || Number.isNaN(value) ? "unknown" : d3.format("+.4f")(value);
  // Blanks and line ends would not show.
  const visible = (text) =>
    text.replace(/ /g, "␣").replace(/\n/g, "↵").replace(/\t/g, "⇥") || "(empty)";

  function fill(name, choices, redraw) {
    const select = find(`select[name=${name}]`);
    for (const [value, label] of choices) select.append(element("option", { value }, label));
    select.value = state[name];
    select.addEventListener("change", () => { state[name] = select.value; redraw(); });
  }

  // ---------------------------------------------------------------- every block
  function rows(model) {
    const curve = model.curves[`${state.curve_class}/${state.reduction}`];
    if (!curve) return null;
    const [attention, mlp] = curve.parts[state.curve_split];
    return curve.gain.map((gain, layer) => ({
      layer, gain, low: curve.low[layer], high: curve.high[layer],
      attention: attention[layer], mlp: mlp[layer], n: curve.n,
    })).slice(Number(state.first));
  }

  function extent(all) {
    const ends = all.flat().flatMap((row) => [
      row.low, row.high, row.gain,
      Math.max(row.attention, 0) + Math.max(row.mlp, 0),
      Math.min(row.attention, 0) + Math.min(row.mlp, 0), 0,
    ]);
    return d3.extent(ends.filter((value) => value !== null));
  }

  function said(row) {
    const band = row.low === null ? "" : ` [${signed(row.low)}, ${signed(row.high)}]`;
    const gain = row.gain === null ? "" : ` (gain ${Math.exp(row.gain).toFixed(3)})`;
    return `block ${row.layer}\nlog gain ${signed(row.gain)}${band} nats${gain}\n` +
      `attention ${signed(row.attention)}, MLP ${signed(row.mlp)}\n${row.n} prompts`;
  }

  function curve(model, found, domain, width) {
    const bars = found.flatMap((row) =>
      PARTS.map(([part, ...colours]) => ({ layer: row.layer, value: row[part], colour: themed(...colours) })));
    const every = Math.ceil(found.length / 12);
    return Plot.plot({
      width, height: 236, marginTop: 28, marginLeft: 50, marginBottom: 36, style: look,
      ariaLabel: `Log gain of every block of ${model.key}`,
      ariaDescription: found.map((row) => `block ${row.layer} ${signed(row.gain)}`).join(", "),
      x: {
        type: "band", domain: found.map((row) => row.layer), label: "block",
        labelAnchor: "center", labelArrow: "none",
        ticks: found.map((row) => row.layer).filter((layer) => layer % every === 0),
      },
      y: { domain, nice: true, grid: true, ticks: 5, label: "log gain (nats)", labelArrow: "none" },
      marks: [
        Plot.barY(bars, { x: "layer", y: "value", fill: "colour" }),
        Plot.ruleY([0], { stroke: INK }),
        Plot.ruleX(found.filter((row) => row.low !== null),
          { x: "layer", y1: "low", y2: "high", stroke: INK, strokeWidth: 2 }),
        Plot.dot(found, { x: "layer", y: "gain", r: 4, fill: themed(...model.colours), stroke: "var(--paper)" }),
        Plot.tip(found, Plot.pointerX({ x: "layer", y: "gain", title: said, fontSize: 12, lineWidth: 30 })),
      ],
    });
  }

  function drawCurves() {
    const boxes = data.models.map(() => element("div"));
    find("#curves").replaceChildren(...data.models.map((model, index) =>
      element("div", {}, element("h4", {}, titled(model)), boxes[index])));
    const found = data.models.map(rows);
    const domain = extent(found.filter((each) => each));
    boxes.forEach((box, index) => box.append(found[index]
      ? curve(data.models[index], found[index], domain, Math.max(240, box.clientWidth))
      : element("p", {}, `No ${names[state.curve_class]} here.`)));
  }

  function drawLegend() {
    find("#curve-legend").replaceChildren(...PARTS.map(([part, ...colours]) => {
      const swatch = element("span", { class: "swatch", style: `background:${themed(...colours)}` });
      return element("span", {}, swatch, names[part]);
    }));
    find("#curve-legend").append(element("span", {},
      `dot and line: log gain and its simultaneous ${d3.format(".0%")(data.confidence)} interval`));
  }

  // ---------------------------------------------------------------- block by token
  const unpacked = new Map();
  function unpack(packed) {
    if (!unpacked.has(packed)) {
      const bytes = Uint8Array.from(atob(packed[1]), (sign) => sign.charCodeAt(0));
      const view = new DataView(bytes.buffer);
      unpacked.set(packed, Float32Array.from({ length: bytes.length / 2 }, (_, i) => {
        const whole = view.getInt16(2 * i, true);
        return whole === -32768 ? NaN : whole * packed[0];
      }));
    }
    return unpacked.get(packed);
  }
  const key = (part) => (part === "attention" || part === "mlp" ? `${part}/${state.split}` : part);

  // Consecutive tokens outside of the chosen class, as [first, last].
  function outside(map) {
    const runs = [];
    [...map.classes].forEach((letter, position) => {
      if (state.class === "all" || CLASSES[letter] === state.class) return;
      const last = runs.at(-1);
      if (last && last[1] === position - 1) last[1] = position;
      else runs.push([position, position]);
    });
    return runs;
  }

  function reading(map, layer, position) {
    const at = layer * map.texts.length + position;
    const value = (part) => unpack(map.values[key(part)])[at];
    return `“${visible(map.texts[position])}”, position ${position}, block ${layer}\n` +
      `log gain ${signed(value("log_gain"))} nats (gain ${d3.format(".4~g")(Math.exp(value("log_gain")))})\n` +
      `attention ${signed(value("attention"))}, MLP ${signed(value("mlp"))} (${state.split})\n` +
      (LOG_GAINS.includes(state.part) ? "" :
        `${names[state.part]} ${d3.format(".4~g")(value(state.part))} (${metrics[state.part].unit})\n`) +
      names[CLASSES[map.classes[position]]];
  }

  function drawMap(model, map, colour, place) {
    const [tokens, layers] = [map.texts.length, model.layers];
    const box = element("div", {
      class: "map", tabindex: "0", role: "application",
      "aria-label": `Map of ${model.key}: ${layers} blocks by ${tokens} tokens. ` +
        "Arrow keys choose a cell, which is read out.",
    });
    const title = element("p", { class: "prompt-title" });
    const text = element("p", { class: "prompt-text" });
    place.append(box, title, text);
    const cell = Math.min(26, Math.max(2, (box.clientWidth - 70) / tokens));  // a longer prompt scrolls
    const high = Math.min(20, Math.max(6, 260 / layers));
    const values = unpack(map.values[key(state.part)]);
    const massive = [...map.classes].flatMap((c, position) => (c === "m" ? [position] : []));
    const plot = Plot.plot({
      width: 70 + cell * tokens, height: 64 + high * layers,
      marginLeft: 50, marginRight: 20, marginTop: 28, marginBottom: 42, style: look,
      ariaLabel: `${names[state.part]} of ${model.key} by block and token`,
      x: { domain: [-0.5, tokens - 0.5], label: "position (token index)", labelArrow: "none", tickFormat: "d" },
      y: {
        domain: [-0.5, layers - 0.5], label: "block", labelArrow: "none", tickFormat: "d",
        ticks: d3.range(0, layers, Math.ceil(layers / 10)),
      },
      color: colour,
      marks: [
        Plot.raster(values, {
          width: tokens, height: layers, x1: -0.5, x2: tokens - 0.5, y1: -0.5, y2: layers - 0.5,
          imageRendering: "pixelated",
        }),
        Plot.rect(outside(map), {
          x1: (run) => run[0] - 0.5, x2: (run) => run[1] + 0.5, y1: -0.5, y2: layers - 0.5,
          fill: "var(--paper)", fillOpacity: 0.72, inset: -0.5,
        }),
        Plot.text(massive, { x: (d) => d, y: layers - 0.5, dy: -6, text: () => "▼", fontSize: 9 }),
        Plot.tip(d3.range(values.length), Plot.pointer({
          x: (i) => i % tokens, y: (i) => Math.floor(i / tokens), fontSize: 12,
          lineWidth: 30, title: (i) => reading(map, Math.floor(i / tokens), i % tokens),
        })),
      ],
    });
    box.append(plot);
    const cursor = d3.select(plot).append("rect")
      .attr("class", "cursor").attr("fill", "none").attr("stroke", INK).attr("stroke-width", 2)
      .attr("visibility", "hidden");
    const choose = (layer, position, moved) => {
      Object.assign(state, { layer, position });
      find("#readout").textContent = `${model.key}: ${reading(map, layer, position).replace(/\n/g, "; ")}`;
      cursor.attr("visibility", moved ? "visible" : "hidden");
      const [x, y] = ["x", "y"].map((axis) => plot.scale(axis).apply);
      cursor.attr("x", x(position - 0.5)).attr("width", x(position + 0.5) - x(position - 0.5))
        .attr("y", y(layer + 0.5)).attr("height", y(layer - 0.5) - y(layer + 0.5));
      if (moved) box.scrollLeft = x(position) - box.clientWidth / 2;
      paint(title, text, map, colour, layer, position);
    };
    plot.addEventListener("input", () => {
      if (plot.value === null || plot.value === undefined) return;
      choose(Math.floor(plot.value / tokens), plot.value % tokens, false);
    });
    box.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, 0], ArrowDown: [-1, 0] }[event.key];
      if (!step) return;
      event.preventDefault();
      const from = [state.layer ?? layers - 1, state.position ?? -1];
      choose(Math.min(layers - 1, Math.max(0, from[0] + step[0])),
        Math.min(tokens - 1, Math.max(0, from[1] + step[1])), true);
    });
    paint(title, text, map, colour, layers - 1, null);
  }

  // Relative luminance (WCAG 2.2).
  function luminance(colour) {
    const { r, g, b } = d3.rgb(colour);
    const linear = (value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    };
    return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  }

  // The prompt's text, a span a token, coloured by one block.
  function paint(title, place, map, colour, layer, chosen) {
    const tokens = map.texts.length;
    const values = unpack(map.values[key(state.part)]);
    const scale = Plot.scale({ color: colour });
    const spans = place.querySelectorAll("span");
    if (Number(place.dataset.layer) === layer && spans.length === tokens) {
      spans.forEach((span, position) => span.classList.toggle("chosen", position === chosen));
      return;
    }
    place.dataset.layer = layer;
    const more = map.tokens > tokens ? ` The first ${tokens} of ${map.tokens} tokens.` : "";
    title.textContent = `The prompt's tokens, coloured by block ${layer}.${more}`;
    place.replaceChildren(...map.texts.map((text, position) => {
      const back = scale.apply(values[layer * tokens + position]) ?? themed("#ffffff", "#14171a");
      const ink = luminance(back) < 0.179 ? "#ffffff" : "#000000";  // either has 4.5 : 1 or more
      const inside = state.class === "all" || CLASSES[map.classes[position]] === state.class;
      const span = element("span", { style: `background:${back};color:${ink}` }, text);
      span.className = `${inside ? "" : "outside"} ${position === chosen ? "chosen" : ""}`.trim();
      return span;
    }));
  }

  // The colour saturates at the last percent of the sizes, so that one token does not pale the rest.
  function diverging(values, pivot) {
    const sizes = values.map((value) => Math.abs(value - pivot)).sort(d3.ascending);
    const most = d3.quantileSorted(sizes, 0.99) || 1;
    const colours = ["#7cc4ff", "#2f6ea3", "#22272c", "#a34a2f", "#ffa47c"];
    return {
      type: "diverging-sqrt", clamp: true, pivot, domain: [pivot - most, pivot + most],
      interpolate: themed((share) => d3.interpolateRdBu(1 - share), d3.interpolateRgbBasis(colours)),
    };
  }
  function sequential(values) {
    const sorted = [...values].sort(d3.ascending);
    const [low, high] = [0.01, 0.99].map((share) => d3.quantileSorted(sorted, share) ?? 0);
    return { type: "sqrt", clamp: true, domain: [low, high > low ? high : low + 1], scheme: "Viridis" };
  }

  function drawMaps() {
    const place = find("#maps");
    place.replaceChildren();
    Object.assign(state, { layer: null, position: null });
    find("#readout").textContent = "No cell chosen.";
    const shown = data.models.filter((model) => state.model === "all" || model.key === state.model)
      .map((model) => [model, model.maps.find((map) => map.prompt === state.prompt)]);
    const values = shown.flatMap(([, map]) => map ? [...unpack(map.values[key(state.part)])] : [])
      .filter((value) => !Number.isNaN(value));
    const { label, definition, unit, neutral } = metrics[state.part];
    const colour = neutral === null ? sequential(values) : diverging(values, neutral);
    const meaning = neutral === null ? "" : `; red above ${neutral}, blue below`;
    const legend = `${label}: ${definition} (${unit}, square-root scale)${meaning}`;
    const scale = Plot.legend({
      color: colour, width: Math.min(360, place.clientWidth), ticks: 5, style: look,
      tickFormat: d3.format(".2~r"),
    });
    find("#map-legend").replaceChildren(element("p", {}, legend), scale);
    for (const [model, map] of shown) {
      place.append(element("h4", {}, titled(model)));
      if (map) drawMap(model, map, colour, place);
      else place.append(element("p", {}, "This model was not given this prompt."));
    }
  }

  // Models may have other prompts, as they do if each has prompts of another length.
  function chooseModel() {
    const model = data.models.find(({ key }) => key === state.model);
    if (model && !model.maps.some((map) => map.prompt === state.prompt)) {
      state.prompt = model.maps[0].prompt;
      find("select[name=prompt]").value = state.prompt;
    }
    drawMaps();
  }
  for (const name of ["class", "split"]) fill(name, data.choices[name], drawMaps);
  for (const [name, choices] of [["curve_class", "class"], ["reduction", "reduction"], ["curve_split", "split"]])
    fill(name, data.choices[choices], drawCurves);
  fill("first", [["0", "all"], ["1", "all but the first"]], drawCurves);
  const one = data.models.map((model) => [model.key, model.key]);
  fill("model", one.length > 1 ? [...one, ["all", "all, one below the other"]] : one, chooseModel);
  const prompts = new Set(data.models.flatMap((model) => model.maps.map((map) => map.prompt)));
  fill("prompt", [...prompts].map((prompt) => [prompt, prompt]), drawMaps);
  fill("part", data.choices.part.map(({ name, label }) => [name, label]), drawMaps);
  function drawAll() {
    drawLegend();
    if (find("#blocks").open) drawCurves();
    drawMaps();
  }
  drawAll();
  dark.addEventListener("change", drawAll);
  find("#blocks").addEventListener("toggle", drawCurves);
  let width = find("#maps").clientWidth;
  new ResizeObserver(() => {
    if (find("#maps").clientWidth === width) return;
    width = find("#maps").clientWidth;
    drawAll();
  }).observe(find("#maps"));

  // ---------------------------------------------------------------- links, print, copying
  function unfold(node) {
    for (let at = node; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  }
  function follow() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target) { unfold(target); target.scrollIntoView(); }
  }
  addEventListener("hashchange", follow);
  follow();
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(unfold));
  const button = find("#copy");
  button?.addEventListener("click", async () => {
    const code = find(`#${button.dataset.copies}`);
    getSelection().selectAllChildren(code);  // if the clipboard is refused, the text is selected
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Press Ctrl+C";
    }
  });
})();
