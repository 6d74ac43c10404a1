"use strict";
// Tooltips of the charts, the browser of training samples, and loading the page of a run that goes on again. Whatever a model wrote is put in with textContent only.
(() => {
  const SVG = "http://www.w3.org/2000/svg";

  const element = (tag, css, ...children) => {
    const node = document.createElement(tag);
    if (css) node.className = css;
    node.append(...children); // strings become text nodes, never markup
    return node;
  };

  const short = (value, digits = 4) => {
    if (value !== 0 && (Math.abs(value) >= 1e6 || Math.abs(value) < 1e-3)) return value.toExponential(2);
    return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(digits)));
  };

  // Tooltips -------------------------------------------------------------------------------------------------------

  const nearest = (xs, x) => {
    let best = 0;
    xs.forEach((other, index) => {
      if (Math.abs(other - x) < Math.abs(xs[best] - x)) best = index;
    });
    return best;
  };

  const addTooltip = (figure) => {
    const data = JSON.parse(figure.dataset.chart);
    const [low, high, left, width, top, height] = data.box;
    const svg = figure.querySelector("svg");
    const cursor = document.createElementNS(SVG, "path");
    cursor.setAttribute("class", "cursor");
    const tip = element("div", "tooltip");
    tip.setAttribute("role", "status");
    let at = -1;

    const hide = () => {
      at = -1;
      cursor.remove();
      tip.remove();
    };
    const show = (index) => {
      at = Math.min(Math.max(index, 0), data.x.length - 1);
      const x = left + (width * (data.x[at] - low)) / (high - low);
      cursor.setAttribute("d", `M${x} ${top}V${top + height}`);
      svg.append(cursor);
      const rows = data.s.filter((series) => series.y[at] !== null).map((series) =>
        element("p", "", element("i", `key ${series.c}`), series.n, element("b", "", short(series.y[at]))));
      tip.replaceChildren(element("p", "", `${data.label} ${short(data.x[at])}`), ...rows);
      figure.append(tip);
      const scale = svg.clientWidth / svg.viewBox.baseVal.width;
      const beside = x * scale + 12;
      const fits = beside + tip.offsetWidth <= figure.clientWidth;
      tip.style.left = `${fits ? beside : Math.max(0, x * scale - 12 - tip.offsetWidth)}px`;
      tip.style.top = `${svg.getBoundingClientRect().top - figure.getBoundingClientRect().top + top * scale}px`;
    };

    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const units = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
      show(nearest(data.x, low + ((units - left) / width) * (high - low)));
    });
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      const target = { ArrowLeft: at < 0 ? data.x.length - 1 : at - 1, ArrowRight: at + 1, Home: 0, End: data.x.length - 1 }[event.key];
      if (event.key === "Escape") hide();
      if (target === undefined) return;
      event.preventDefault();
      show(target);
    });
  };

  // Training samples -----------------------------------------------------------------------------------------------

  const FINISH = { stop: "ended by itself", length: "cut at the token limit", abort: "aborted" };

  const modelText = (css, text) => {
    const pre = element("pre", css);
    pre.tabIndex = 0;
    text.split(/(<\/?(?:think|answer)>)/).forEach((piece, index) => {
      if (piece) pre.append(index % 2 ? element("span", "tag", piece) : piece);
    });
    return pre;
  };

  const grade = (one) => {
    if (one.status === "error") return ["", "not scored"];
    const late = one.status === "timeout" ? ", timed out" : "";
    if (one.right === null) return ["", late.slice(2)];
    return one.right ? ["right", "✓ correct"] : ["wrong", `✗ wrong${late}`];
  };

  const numbers = (pairs) =>
    element("p", "numbers", ...pairs.map(([name, value]) => element("span", "", `${name} `, element("b", "", value))));

  const card = (one) => {
    const [css, words] = grade(one);
    const signed = one.advantage === null ? "–" : (one.advantage > 0 ? "+" : one.advantage < 0 ? "−" : "") + short(Math.abs(one.advantage), 3);
    const reward = element("span", "", "reward ", element("b", "", one.reward === null ? "–" : short(one.reward)));
    const ending = FINISH[one.finish] || one.finish;
    const facts = [ending, one.tokens === null ? "" : `${short(one.tokens)} tokens`, one.staleness ? `staleness ${short(one.staleness)}` : ""];
    return element("article", `card ${css}`,
      element("header", "", element("span", "grade", words), reward),
      numbers([["advantage", signed], ...one.parts.map(([name, value]) => [name, short(value)])]),
      element("p", "numbers", ...facts.filter(Boolean).map((fact) => element("span", "", fact))),
      modelText("", one.text));
  };

  const groupBlock = (group, wanted) => {
    const shown = group.completions.filter((one) => wanted === "all" || one.right === (wanted === "correct"));
    if (!shown.length) return null;
    const head = element("p", "group-head", `${group.id} · `);
    if (group.answer) head.append("reference answer ", element("b", "", group.answer), " · ");
    head.append(`${shown.length} of ${group.size} completions`);
    shown.sort((a, b) => (b.reward ?? -Infinity) - (a.reward ?? -Infinity));
    return element("div", "group", modelText("prompt", group.prompt), head, element("div", "cards", ...shown.map(card)));
  };

  const addBrowser = (root, stage) => {
    const slider = root.querySelector("input[type=range]");
    const output = root.querySelector("output");
    const groups = root.querySelector(".groups");
    const filters = root.querySelector(".filters");
    const all = stage.steps.flatMap((step) => step.groups.flatMap((group) => group.completions));
    filters.hidden = all.every((one) => one.right === null);
    filters.style.display = filters.hidden ? "none" : "";

    const render = () => {
      const step = stage.steps[Number(slider.value)];
      const wanted = root.querySelector("input[type=radio]:checked").value;
      output.textContent = short(step.step);
      slider.setAttribute("aria-valuetext", `step ${step.step}`);
      const blocks = step.groups.map((group) => groupBlock(group, wanted)).filter(Boolean);
      groups.replaceChildren(...(blocks.length ? blocks : [element("p", "empty", `No ${wanted === "all" ? "" : `${wanted} `}completion in these groups.`)]));
    };
    slider.addEventListener("input", render);
    filters.addEventListener("change", render);
    root.querySelector(".controls").hidden = false;
    render();
  };

  // Answers of one model stay in one column while the prompts are read.
  document.querySelectorAll("#answers details").forEach((set) => {
    const rows = [...set.querySelectorAll(".side")];
    rows.forEach((row) => row.addEventListener("scroll", () => {
      rows.forEach((other) => { if (other.scrollLeft !== row.scrollLeft) other.scrollLeft = row.scrollLeft; });
    }, { passive: true }));
  });

  // A link to a stage opens it, also where the browser does not do so by itself.
  const reveal = () => {
    const target = location.hash.startsWith("#stage-") && document.getElementById(location.hash.slice(1));
    const folded = target && target.closest("details");
    if (folded && !folded.open) {
      folded.open = true;
      target.scrollIntoView();
    }
  };
  addEventListener("hashchange", reveal);
  reveal();

  // The page of a run that goes on -----------------------------------------------------------------------------------

  // What a reader has opened and where he stands is kept over a load.
  const KEPT = `rayzero ${location.pathname}`;
  const foldable = () => [...document.querySelectorAll("details")];
  const controls = () => [...document.querySelectorAll(".browser input")];

  const keep = () => {
    try {
      sessionStorage.setItem(KEPT, JSON.stringify({
        y: scrollY,
        open: foldable().map((one) => one.open),
        controls: controls().map((one) => (one.type === "range" ? [one.value, one.value === one.max] : one.checked)),
      }));
    } catch { /* a browser that keeps nothing for files */ }
  };
  const restore = () => {
    try {
      const kept = JSON.parse(sessionStorage.getItem(KEPT));
      sessionStorage.removeItem(KEPT);
      if (!kept) return null;
      if (kept.open.length === foldable().length) foldable().forEach((one, index) => { one.open = kept.open[index]; });
      if (kept.controls.length === controls().length) {
        controls().forEach((one, index) => {
          if (one.type === "range") one.value = kept.controls[index][1] ? one.max : kept.controls[index][0];
          else one.checked = kept.controls[index];
        });
      }
      return kept.y;
    } catch {
      return null;
    }
  };

  const refresh = Number(document.documentElement.dataset.refresh);
  let touched = 0;
  const load = () => {
    // Not under the eyes of somebody who selects text or reads a tooltip.
    const busy = String(getSelection()) || document.querySelector(".tooltip") || document.hidden;
    if (busy || Date.now() - touched < 3000) {
      setTimeout(load, 1000);
      return;
    }
    keep();
    location.reload();
  };
  if (refresh) {
    ["pointerdown", "keydown", "wheel", "input"].forEach((kind) =>
      addEventListener(kind, () => { touched = Date.now(); }, { passive: true }));
    setTimeout(load, 1000 * refresh);
  }

  document.querySelectorAll("figure[data-chart]").forEach(addTooltip);
  const samples = JSON.parse(document.getElementById("samples-data").textContent);
  const stood = restore();
  document.querySelectorAll(".browser").forEach((root) => addBrowser(root, samples[Number(root.dataset.stage)]));
  if (stood !== null) scrollTo({ top: stood, behavior: "instant" });
})();
