// What pages share: data, theme, sortable tables, plots. The one global name is `softprune`, for a page's own script.
const softprune = (() => {
  "use strict";
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const listeners = [];
  let printing = false;

  /** What the page holds under a name; null where it holds nothing. */
  function data(name) {
    const element = document.getElementById("data-" + name);
    return element === null ? null : JSON.parse(element.textContent);
  }

  const palettes = data("palettes");

  /** The colours to draw with now. */
  function colours() {
    const chosen = root.dataset.theme;
    const dark = !printing && (chosen === "dark" || (chosen === undefined && system.matches));
    return palettes[dark ? "dark" : "light"];
  }

  /** Calls `act` now, and whenever colours have changed. */
  function onTheme(act) {
    listeners.push(act);
    act();
  }

  function recolour() {
    for (const act of listeners) act();
  }

  // Theme. The choice lives as long as the page does: files opened from a disk have no storage of their own.
  function choose(theme) {
    if (theme === "auto") delete root.dataset.theme;
    else root.dataset.theme = theme;
    for (const button of document.querySelectorAll("[data-theme-choice]"))
      button.setAttribute("aria-pressed", String(button.dataset.themeChoice === theme));
    const media = { auto: "(prefers-color-scheme: dark)", light: "not all", dark: "all" }[theme];
    for (const source of document.querySelectorAll("picture source")) source.media = media;
    recolour();
  }
  for (const button of document.querySelectorAll("[data-theme-choice]"))
    button.addEventListener("click", () => choose(button.dataset.themeChoice));
  system.addEventListener("change", recolour);
  for (const [event, value] of [["beforeprint", true], ["afterprint", false]])
    addEventListener(event, () => { printing = value; recolour(); });

  // Tables. What isn't known stands last in either direction, since it is neither small nor large.
  const UNKNOWN = new Set(["", "not measured", "–", "not defined", "not comparable"]);
  const NUMBER = /^[<>≤≥~]?\s*[+\-−]?(\d[\d,]*\.?\d*|\.\d+)(e[+-]?\d+)?(?![\w.-])/i;
  const order = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

  function text(row, column) {
    const cell = row.cells[column];
    return (cell.dataset.value ?? cell.textContent).trim();
  }

  function number(value) {
    const found = NUMBER.exec(value);
    return found === null ? NaN : Number(found[0].replace(/[<>≤≥~,\s]/g, "").replace("−", "-"));
  }

  function sort(body, rows, column, sign) {
    const texts = new Map(rows.map((row) => [row, text(row, column)]));
    const known = rows.filter((row) => !UNKNOWN.has(texts.get(row)));
    const numeric = known.every((row) => !Number.isNaN(number(texts.get(row))));
    const compare = numeric
      ? (a, b) => number(texts.get(a)) - number(texts.get(b))
      : (a, b) => order.compare(texts.get(a), texts.get(b));
    known.sort((a, b) => sign * compare(a, b));
    body.append(...known, ...rows.filter((row) => UNKNOWN.has(texts.get(row))));
  }

  function makeSortable(table) {
    const head = table.tHead;
    const body = table.tBodies[0];
    if (!head || head.rows.length !== 1 || !body || body.rows.length < 2 || table.querySelector("[colspan], [rowspan]")) return;
    const asWritten = [...body.rows];
    [...head.rows[0].cells].forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      heading.classList.add("sortable");
      button.addEventListener("click", () => {
        const next = { ascending: "descending", descending: null }[heading.getAttribute("aria-sort")];
        for (const other of head.rows[0].cells) other.removeAttribute("aria-sort");
        if (next === null) body.append(...asWritten);
        else {
          heading.setAttribute("aria-sort", next ?? "ascending");
          sort(body, asWritten, column, next === "descending" ? -1 : 1);
        }
      });
    });
  }

  // Plots. Colours are names until a theme is known.
  function coloured(value, palette) {
    if (typeof value === "string") return value.startsWith("theme:") ? palette[value.slice(6)] : value;
    if (Array.isArray(value)) return value.map((item) => coloured(item, palette));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item, palette)]));
  }

  function dressed(layout, palette) {
    const axis = { gridcolor: palette.faint, zerolinecolor: palette.faint, linecolor: palette.ink, tickcolor: palette.ink,
      automargin: true, fixedrange: true };
    const done = { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", dragmode: false, hovermode: "closest",
      autosize: true, ...layout };
    done.font = { color: palette.ink, size: 13, family: "system-ui, sans-serif", ...layout.font };
    done.margin = { l: 50, r: 12, t: 12, b: 44, ...layout.margin };
    done.hoverlabel = { bgcolor: palette.paper, bordercolor: palette.ink, font: { color: palette.ink }, align: "left",
      ...layout.hoverlabel };
    done.legend = { orientation: "h", y: -0.22, ...layout.legend };
    for (const name of new Set(["xaxis", "yaxis", ...Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key))]))
      done[name] = { ...axis, ...layout[name], title: { standoff: 10, font: { size: 13 }, ...layout[name]?.title } };
    return done;
  }

  /** A trace whose intervals are drawn in ink: plotly's own gray nearly vanishes on dark paper. */
  function inked(trace, palette) {
    const errors = Object.fromEntries(["error_x", "error_y"].filter((name) => trace[name])
      .map((name) => [name, { color: palette.ink, thickness: 1.5, ...trace[name] }]));
    return { ...trace, ...errors };
  }

  function draw(box, plot) {
    const figure = box.closest("figure");
    const show = (afresh) => {
      const palette = colours();
      box.hidden = false;
      const traces = coloured(plot.traces, palette).map((trace) => inked(trace, palette));
      const layout = dressed(coloured(plot.layout, palette), palette);
      Plotly[afresh ? "newPlot" : "react"](box, traces, layout, { displayModeBar: false });
      for (const still of figure ? figure.querySelectorAll(".still") : []) still.hidden = true;
    };
    onTheme(() => show(false));
    // Plotly's own way to follow the window forgets a plot's height and keeps its old margins: legends lay over captions.
    let width = box.clientWidth;
    let waiting;
    addEventListener("resize", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        if (box.clientWidth === width) return;
        width = box.clientWidth;
        show(true);
      }, 100);
    });
  }

  for (const element of document.querySelectorAll(".scripted")) element.hidden = false;
  for (const table of document.querySelectorAll("table:not([data-fixed])")) makeSortable(table);
  for (const plot of data("plots")) {
    const box = document.querySelector('[data-plot="' + CSS.escape(plot.name) + '"]');
    if (box !== null) draw(box, plot);
  }
  return { data, colours, onTheme, makeSortable };
})();
